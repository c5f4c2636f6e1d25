import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;

/** java.net.http.HttpClient: keeps connections; the proxy is -Dhttp.proxyHost and -Dhttp.proxyPort. */
final class JdkHttpClient {
    // <sample>
    static final HttpClient CLIENT = HttpClient.newHttpClient();

    static Serve.Answer call(String method, String url, byte[] body, String etag) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(url)).header("Accept", "application/fhir+json");
        if (etag != null) request.header("If-Match", etag);
        if (body == null) {
            request.method(method, BodyPublishers.noBody());
        } else {
            request.header("Content-Type", "application/fhir+json").method(method, BodyPublishers.ofByteArray(body));
        }
        var answer = CLIENT.send(request.build(), BodyHandlers.ofByteArray());
        var fields = answer.headers();
        return new Serve.Answer(answer.statusCode(), fields.firstValue("ETag").orElse(null),
            fields.firstValue("Location").orElse(null), answer.body());
    }

    static Serve.Answer search(String name) throws Exception {
        var encoded = URLEncoder.encode(name, StandardCharsets.UTF_8);
        return call("GET", System.getenv("BASE") + "/Patient?name=" + encoded, null, null);
    }
    // </sample>

    public static void main(String[] arguments) throws Exception {
        Serve.serve(JdkHttpClient::call, JdkHttpClient::search);
    }
}
