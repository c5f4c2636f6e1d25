import ca.uhn.fhir.batch2.api.IJobMaintenanceService;
import ca.uhn.fhir.batch2.config.Batch2JobRegisterer;
import ca.uhn.fhir.batch2.jobs.config.Batch2JobsConfig;
import ca.uhn.fhir.batch2.jobs.export.BulkDataExportProvider;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings.IdStrategyEnum;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings.StoreMetaSourceInformationEnum;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.config.ThreadPoolFactoryConfig;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.batch2.JpaBatch2Config;
import ca.uhn.fhir.jpa.binary.api.IBinaryStorageSvc;
import ca.uhn.fhir.jpa.binary.svc.NullBinaryStorageSvcImpl;
import ca.uhn.fhir.jpa.config.HapiJpaConfig;
import ca.uhn.fhir.jpa.config.r5.JpaR5Config;
import ca.uhn.fhir.jpa.config.util.HapiEntityManagerFactoryUtil;
import ca.uhn.fhir.jpa.model.config.PartitionSettings;
import ca.uhn.fhir.jpa.model.config.SubscriptionSettings;
import ca.uhn.fhir.jpa.model.dialect.HapiFhirH2Dialect;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.provider.JpaSystemProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.jpa.subscription.channel.config.SubscriptionChannelConfig;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import com.zaxxer.hikari.HikariDataSource;
import jakarta.persistence.EntityManagerFactory;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import javax.sql.DataSource;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.springframework.beans.factory.config.ConfigurableListableBeanFactory;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.context.annotation.Primary;
import org.springframework.orm.jpa.JpaTransactionManager;
import org.springframework.orm.jpa.LocalContainerEntityManagerFactoryBean;

/**
 * HAPI FHIR R5 at http://127.0.0.1:PORT/fhir, with its data in a folder: {@code Server PORT FOLDER}.
 *
 * <p>Links begin with what the request's Host says. Prints a line once it answers.
 */
public final class Server {
    @Configuration
    @Import({
        JpaR5Config.class,
        HapiJpaConfig.class,
        ThreadPoolFactoryConfig.class,
        JpaBatch2Config.class,
        Batch2JobsConfig.class,
        SubscriptionChannelConfig.class,
    })
    static class Settings {
        @Bean
        JpaStorageSettings storageSettings() {
            JpaStorageSettings settings = new JpaStorageSettings();
            settings.setAllowMultipleDelete(true);
            settings.setAllowExternalReferences(true);
            settings.setResourceServerIdStrategy(IdStrategyEnum.UUID);
            // Else a search within a minute gets the result of an earlier one.
            settings.setReuseCachedSearchResultsForMillis(null);
            // Else meta.source holds the id of each request.
            settings.setStoreMetaSourceInformation(StoreMetaSourceInformationEnum.NONE);
            return settings;
        }

        @Bean
        PartitionSettings partitionSettings() {
            return new PartitionSettings();
        }

        @Bean
        SubscriptionSettings subscriptionSettings() {
            return new SubscriptionSettings();
        }

        @Bean
        IBinaryStorageSvc binaryStorage() {
            return new NullBinaryStorageSvcImpl();
        }

        @Bean
        DataSource dataSource() {
            HikariDataSource source = new HikariDataSource();
            source.setJdbcUrl("jdbc:h2:file:" + folder.resolve("data") + ";WRITE_DELAY=0");
            source.setUsername("sa");
            // A request may hold one connection while it waits for a second. With the ten that Hikari
            // opens by default, as many first requests at once wait for each other.
            source.setMaximumPoolSize(128);
            return source;
        }

        @Bean
        @Primary
        LocalContainerEntityManagerFactoryBean entityManagerFactory(
                ConfigurableListableBeanFactory beans, FhirContext fhir, JpaStorageSettings settings, DataSource source) {
            LocalContainerEntityManagerFactoryBean factory =
                    HapiEntityManagerFactoryUtil.newEntityManagerFactory(beans, fhir, settings);
            Properties properties = new Properties();
            properties.put("hibernate.dialect", HapiFhirH2Dialect.class.getName());
            properties.put("hibernate.hbm2ddl.auto", isNew ? "create" : "none");
            properties.put("hibernate.search.enabled", "false");
            properties.put("hibernate.jdbc.batch_size", "20");
            factory.setPersistenceUnitName("HAPI_PU");
            factory.setDataSource(source);
            factory.setJpaProperties(properties);
            return factory;
        }

        @Bean
        @Primary
        JpaTransactionManager transactionManager(EntityManagerFactory factory) {
            return new JpaTransactionManager(factory);
        }
    }

    private static Path folder;
    private static boolean isNew;

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        folder = Path.of(arguments[1]).toAbsolutePath();
        isNew = Files.notExists(folder.resolve("data.mv.db"));
        AnnotationConfigApplicationContext context = new AnnotationConfigApplicationContext();
        context.register(Settings.class);
        context.addBeanFactoryPostProcessor(
                beans -> {
                    for (String name : beans.getBeanDefinitionNames()) beans.getBeanDefinition(name).setLazyInit(true);
                });
        context.refresh();
        org.eclipse.jetty.server.Server jetty =
                new org.eclipse.jetty.server.Server(new InetSocketAddress("127.0.0.1", port));
        ServletContextHandler handler = new ServletContextHandler();
        handler.addServlet(new ServletHolder(servlet(context)), "/fhir/*");
        jetty.setHandler(handler);
        jetty.start();
        context.getBean(Batch2JobRegisterer.class);
        context.getBean("batch2ProcessingChannelConsumer");
        IJobMaintenanceService exports = context.getBean(IJobMaintenanceService.class);
        Executors.newSingleThreadScheduledExecutor()
                .scheduleWithFixedDelay(exports::runMaintenancePass, 200, 200, TimeUnit.MILLISECONDS);
        System.out.println("http://127.0.0.1:" + port + "/fhir");
    }

    private static RestfulServer servlet(AnnotationConfigApplicationContext context) {
        RestfulServer server = new RestfulServer(context.getBean(FhirContext.class));
        JpaSystemProvider<?, ?> system = context.getBean(JpaSystemProvider.class);
        server.registerProviders(context.getBean(ResourceProviderFactory.class).createProviders());
        server.registerProviders(
                system,
                context.getBean(BulkDataExportProvider.class));
        server.setPagingProvider(context.getBean(DatabaseBackedPagingProvider.class));
        server.setServerConformanceProvider(
                new JpaCapabilityStatementProvider(
                        server,
                        context.getBean(IFhirSystemDao.class),
                        context.getBean(JpaStorageSettings.class),
                        context.getBean(ISearchParamRegistry.class),
                        context.getBean(IValidationSupport.class)));
        return server;
    }
}
