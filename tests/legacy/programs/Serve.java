import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/** What the programs in Java share. */
final class Serve {
    /** An answer, be it an error. */
    record Answer(int status, String etag, String location, byte[] body) {}

    interface Call {
        Answer call(String method, String url, byte[] body, String etag) throws Exception;
    }

    interface Search {
        Answer search(String name) throws Exception;
    }

    static void serve(Call call, Search search) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line; (line = in.readLine()) != null; ) {
            String[] order = line.split("\t");
            byte[] body = order[2].equals("-") ? null : Files.readAllBytes(Path.of(order[2]));
            String etag = order[3].equals("-") ? null : order[3];
            Answer answer = order[0].equals("SEARCH")
                ? search.search(order[1]) : call.call(order[0], order[1], body, etag);
            Files.write(Path.of(System.getenv("OUT")), answer.body());
            out.printf("%d\t%s\t%s\n", answer.status(), said(answer.etag()), said(answer.location()));
        }
    }

    private static String said(String value) {
        return value == null ? "" : value;
    }
}
