import java.net.URLEncoder;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.core5.http.ClassicHttpResponse;
import org.apache.hc.core5.http.ContentType;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.apache.hc.core5.http.io.support.ClassicRequestBuilder;

/** Apache HttpClient 5: keeps connections; createSystem() knows -Dhttp.proxyHost and -Dhttp.proxyPort. */
final class ApacheClient5 {
    // <sample>
    static final CloseableHttpClient CLIENT = HttpClients.createSystem();

    static Serve.Answer call(String method, String url, byte[] body, String etag) throws Exception {
        var request = ClassicRequestBuilder.create(method).setUri(url).setHeader("Accept", "application/fhir+json");
        if (etag != null) request.setHeader("If-Match", etag);
        if (body != null) request.setEntity(body, ContentType.create("application/fhir+json"));
        return CLIENT.execute(request.build(), answer -> {
            byte[] text = answer.getEntity() == null ? new byte[0] : EntityUtils.toByteArray(answer.getEntity());
            return new Serve.Answer(answer.getCode(), field(answer, "ETag"), field(answer, "Location"), text);
        });
    }

    static String field(ClassicHttpResponse answer, String name) {
        var field = answer.getFirstHeader(name);
        return field == null ? null : field.getValue();
    }

    static Serve.Answer search(String name) throws Exception {
        return call("GET", System.getenv("BASE") + "/Patient?name=" + URLEncoder.encode(name, "UTF-8"), null, null);
    }
    // </sample>

    public static void main(String[] arguments) throws Exception {
        Serve.serve(ApacheClient5::call, ApacheClient5::search);
    }
}
