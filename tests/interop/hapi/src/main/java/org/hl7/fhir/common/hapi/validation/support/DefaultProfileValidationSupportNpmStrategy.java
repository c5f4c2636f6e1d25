package org.hl7.fhir.common.hapi.validation.support;

import ca.uhn.fhir.context.FhirContext;
import java.util.Set;
import org.hl7.fhir.r5.model.Enumerations.FHIRTypes;
import org.hl7.fhir.r5.model.StructureDefinition;
import org.hl7.fhir.r5.model.StructureDefinition.StructureDefinitionKind;
import org.hl7.fhir.r5.model.StructureDefinition.TypeDerivationRule;

/**
 * Takes the place of HAPI's own, which reads 7,000 definitions before the server starts. FHIRPath
 * needs the names of types; search parameters are known from the classes of resources, and nothing
 * is validated by profiles.
 */
public class DefaultProfileValidationSupportNpmStrategy extends NpmPackageValidationSupport {
    public DefaultProfileValidationSupportNpmStrategy(FhirContext context) {
        super(context);
        Set<String> resources = context.getResourceTypes();
        for (FHIRTypes type : FHIRTypes.values()) {
            String name = type.toCode();
            if (name == null) continue;
            StructureDefinition definition = new StructureDefinition();
            definition.setUrl("http://hl7.org/fhir/StructureDefinition/" + name);
            definition.setName(name);
            definition.setType(name);
            definition.setDerivation(TypeDerivationRule.SPECIALIZATION);
            definition.setKind(
                    resources.contains(name)
                            ? StructureDefinitionKind.RESOURCE
                            : Character.isLowerCase(name.charAt(0))
                                    ? StructureDefinitionKind.PRIMITIVETYPE
                                    : StructureDefinitionKind.COMPLEXTYPE);
            // Else HAPI tries to generate one.
            definition.getSnapshot().addElement().setPath(name);
            addStructureDefinition(definition);
        }
    }
}
