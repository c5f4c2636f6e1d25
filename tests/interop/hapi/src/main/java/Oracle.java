import ca.uhn.fhir.context.BaseRuntimeChildDefinition;
import ca.uhn.fhir.context.BaseRuntimeElementDefinition;
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.FhirVersionEnum;
import ca.uhn.fhir.parser.IParser;
import ca.uhn.fhir.parser.StrictErrorHandler;
import ca.uhn.fhir.util.IModelVisitor2;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import org.hl7.fhir.instance.model.api.IBase;
import org.hl7.fhir.instance.model.api.IBaseExtension;
import org.hl7.fhir.instance.model.api.IBaseResource;
import org.hl7.fhir.instance.model.api.IPrimitiveType;

/**
 * Says whether two bodies hold the same resource but for links, as HAPI's strict parser reads them.
 *
 * <p>A line asks: release (R4, R5), format (json, xml), the base URL of links in the first and in the
 * second body, and both bodies in base64, with tabs between. A line answers: empty, what differs, or that the parser refuses both alike.
 */
public final class Oracle {
    private static final String UNREADABLE = "unreadable";
    private static final Set<String> LINKS =
            Set.of(
                    "Attachment.url",
                    "Bundle.entry.fullUrl",
                    "Bundle.entry.request.url",
                    "Bundle.entry.response.location",
                    "Bundle.link.url",
                    "CapabilityStatement.implementation.url",
                    "Parameters.parameter.value[x]",
                    "Reference.reference",
                    "TerminologyCapabilities.implementation.url",
                    "ValueSet.expansion.next");

    private record Value(String path, String text, boolean isLink) {}

    public static void main(String[] arguments) throws Exception {
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = questions.readLine(); line != null; line = questions.readLine()) {
            String[] asked = line.split("\t", -1);
            FhirContext context = FhirContext.forCached(FhirVersionEnum.valueOf(asked[0]));
            List<Value> first = values(context, asked[1], asked[4]), second = values(context, asked[1], asked[5]);
            String answer = difference(first, second, asked[2], asked[3]);
            if (answer.isEmpty() && first.get(0).path().equals(UNREADABLE)) answer = UNREADABLE;
            System.out.println(answer.replaceAll("\\s+", " "));
        }
    }

    private static List<Value> values(FhirContext context, String format, String encoded) {
        IParser parser = format.equals("xml") ? context.newXmlParser() : context.newJsonParser();
        parser.setParserErrorHandler(new StrictErrorHandler());
        parser.setOverrideResourceIdWithBundleEntryFullUrl(false);
        String body = new String(Base64.getDecoder().decode(encoded), StandardCharsets.UTF_8);
        List<Value> found = new ArrayList<>();
        IBaseResource resource;
        try {
            resource = parser.parseResource(body);
        } catch (RuntimeException error) {
            return List.of(new Value(UNREADABLE, error.getMessage(), false));
        }
        IModelVisitor2 visitor =
                new IModelVisitor2() {
                    @Override
                    public boolean acceptElement(
                            IBase element,
                            List<IBase> containing,
                            List<BaseRuntimeChildDefinition> children,
                            List<BaseRuntimeElementDefinition<?>> definitions) {
                        found.add(value(element, containing, children));
                        return true;
                    }

                    @Override
                    public boolean acceptUndeclaredExtension(
                            IBaseExtension<?, ?> extension,
                            List<IBase> containing,
                            List<BaseRuntimeChildDefinition> children,
                            List<BaseRuntimeElementDefinition<?>> definitions) {
                        found.add(new Value("extension", extension.getUrl(), false));
                        return true;
                    }
                };
        context.newTerser().visit(resource, visitor);
        return found;
    }

    private static Value value(
            IBase element, List<IBase> containing, List<BaseRuntimeChildDefinition> children) {
        StringBuilder path = new StringBuilder();
        for (BaseRuntimeChildDefinition child : children) path.append('.').append(child.getElementName());
        String text = element instanceof IPrimitiveType<?> primitive ? primitive.getValueAsString() : "";
        IBase parent = containing.size() < 2 ? null : containing.get(containing.size() - 2);
        String name = path.substring(path.lastIndexOf(".") + 1);
        return new Value(path.toString(), text, parent != null && LINKS.contains(parent.fhirType() + "." + name));
    }

    private static String difference(List<Value> first, List<Value> second, String firstBase, String secondBase) {
        for (int at = 0; at < Math.min(first.size(), second.size()); at++) {
            Value one = first.get(at), other = second.get(at);
            String expected = one.text();
            if (one.isLink() && startsWith(expected, firstBase)) expected = secondBase + expected.substring(firstBase.length());
            if (!one.path().equals(other.path()) || !String.valueOf(expected).equals(String.valueOf(other.text())))
                return one.path() + " " + one.text() + " → " + other.path() + " " + other.text();
        }
        return first.size() == second.size() ? "" : first.size() + " → " + second.size() + " values";
    }

    private static boolean startsWith(String text, String base) {
        if (text == null || !text.startsWith(base)) return false;
        return text.length() == base.length() || "/?#".indexOf(text.charAt(base.length())) >= 0;
    }
}
