package bench;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.ServletComponentScan;

/** Starts Google's fhir-gateway as its module `exec` does, which no registry has. */
@SpringBootApplication(scanBasePackages = "com.google.fhir.gateway.plugin")
@ServletComponentScan("com.google.fhir.gateway")
public class FhirGateway {
  public static void main(String[] arguments) {
    SpringApplication.run(FhirGateway.class, arguments);
  }
}
