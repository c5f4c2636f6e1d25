import java.net.URLEncoder;
import org.apache.http.client.methods.CloseableHttpResponse;
import org.apache.http.client.methods.RequestBuilder;
import org.apache.http.entity.ByteArrayEntity;
import org.apache.http.entity.ContentType;
import org.apache.http.impl.client.CloseableHttpClient;
import org.apache.http.impl.client.HttpClients;
import org.apache.http.util.EntityUtils;

/** Apache HttpClient 4: keeps connections; createSystem() knows -Dhttp.proxyHost and -Dhttp.proxyPort. */
final class ApacheClient4 {
    // <sample>
    static final CloseableHttpClient CLIENT = HttpClients.createSystem();

    static Serve.Answer call(String method, String url, byte[] body, String etag) throws Exception {
        var request = RequestBuilder.create(method).setUri(url).setHeader("Accept", "application/fhir+json");
        if (etag != null) request.setHeader("If-Match", etag);
        if (body != null) request.setEntity(new ByteArrayEntity(body, ContentType.create("application/fhir+json")));
        try (CloseableHttpResponse answer = CLIENT.execute(request.build())) {
            byte[] text = answer.getEntity() == null ? new byte[0] : EntityUtils.toByteArray(answer.getEntity());
            return new Serve.Answer(answer.getStatusLine().getStatusCode(), field(answer, "ETag"), field(answer, "Location"), text);
        }
    }

    static String field(CloseableHttpResponse answer, String name) {
        var field = answer.getFirstHeader(name);
        return field == null ? null : field.getValue();
    }

    static Serve.Answer search(String name) throws Exception {
        return call("GET", System.getenv("BASE") + "/Patient?name=" + URLEncoder.encode(name, "UTF-8"), null, null);
    }
    // </sample>

    public static void main(String[] arguments) throws Exception {
        Serve.serve(ApacheClient4::call, ApacheClient4::search);
    }
}
