// The JDK's own HttpClient, without a library: `java JdkHttpClient.java`.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.stream.Collectors;

public class JdkHttpClient {
    private static final String URL = System.getenv("ESPALIER_URL");
    private static final String MODEL = System.getenv("ESPALIER_MODEL");
    // Tries HTTP/2 first, which the server reads on the same port.
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    public static void main(String[] arguments) throws Exception {
        String messages = "\"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of France?\"}]";
        String chat = "{\"model\": \"" + MODEL + "\", " + messages + ", \"max_tokens\": 16, \"temperature\": 0%s}";
        var answer = CLIENT.send(request("/v1/chat/completions", chat.formatted("")), BodyHandlers.ofString());
        print("chat", answer.statusCode() == 200 && answer.body().contains("\"content\":"), answer.body());

        var events = CLIENT.send(request("/v1/chat/completions", chat.formatted(", \"stream\": true")), BodyHandlers.ofLines());
        String lines = events.body().filter(line -> line.startsWith("data: ")).collect(Collectors.joining("\n"));
        print("stream", lines.endsWith("data: [DONE]"), lines.lines().count() + " events");

        String input = "{\"model\": \"" + MODEL + "\", \"input\": \"where is my card?\"}";
        var embedding = CLIENT.send(request("/v1/embeddings", input), BodyHandlers.ofString());
        print("embeddings", embedding.statusCode() == 200, embedding.body().length() + " bytes");

        var missing = CLIENT.send(request("/v1/chat/completions", chat.formatted("").replace(MODEL, "nobody")), BodyHandlers.ofString());
        print("errors", missing.statusCode() == 404 && missing.body().contains("model_not_found"), missing.body());
    }

    private static HttpRequest request(String path, String body) {
        return HttpRequest.newBuilder(URI.create(URL + path)).header("content-type", "application/json")
                .POST(BodyPublishers.ofString(body)).build();
    }

    private static void print(String feature, boolean isRight, String text) {
        if (!isRight) {
            throw new IllegalStateException(feature + ": " + text);
        }
        System.out.println(feature + ": " + text);
    }
}
