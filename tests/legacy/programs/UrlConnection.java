import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.net.URLEncoder;

/** java.net.HttpURLConnection: keeps connections; the proxy is -Dhttp.proxyHost and -Dhttp.proxyPort. */
final class UrlConnection {
    // <sample>
    static Serve.Answer call(String method, String url, byte[] body, String etag) throws Exception {
        var connection = (HttpURLConnection) new URL(url).openConnection();
        connection.setRequestMethod(method);
        connection.setRequestProperty("Accept", "application/fhir+json");
        if (etag != null) connection.setRequestProperty("If-Match", etag);
        if (body != null) {
            connection.setRequestProperty("Content-Type", "application/fhir+json");
            connection.setDoOutput(true);
            connection.getOutputStream().write(body);
        }
        int status = connection.getResponseCode();
        // getInputStream() throws for an error, whose OperationOutcome is in the other one.
        try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            byte[] text = in.readAllBytes(); // to the end, or the connection is not used again
            return new Serve.Answer(status, connection.getHeaderField("ETag"), connection.getHeaderField("Location"), text);
        }
    }

    static Serve.Answer search(String name) throws Exception {
        return call("GET", System.getenv("BASE") + "/Patient?name=" + URLEncoder.encode(name, "UTF-8"), null, null);
    }
    // </sample>

    public static void main(String[] arguments) throws Exception {
        Serve.serve(UrlConnection::call, UrlConnection::search);
    }
}
