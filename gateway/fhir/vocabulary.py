"""The closed sets that label a request: in metrics, in audit records and in permissions.

The resource types are those of FHIR R5 (value set resource-types, without the abstract ones).
Interactions are the codes of FHIR R5's code system restful-interaction, and a few codes of the
gateway for interactions that it does not have. The purposes of use are the national list: HL7's
v3-ActReason codes that DHP accepts in an audit.
"""

from __future__ import annotations

from typing import Final

XML_NAMESPACE: Final = "http://hl7.org/fhir"
# The interactions of FHIR R5 (restful-interaction) and the gateway's names for other requests.
INTERACTIONS: Final[tuple[str, ...]] = tuple(
    """
    read vread update patch delete history-instance history-type history-system create search-type
    search-system capabilities transaction batch operation async-status async-cancel
    smart-configuration other
    """.split()
)
SEARCHES: Final = frozenset({"search-type", "search-system"})
HISTORIES: Final = frozenset({"history-instance", "history-type", "history-system"})
# Operations of FHIR R5, of the platform, and common ones of other servers; without the `$`.
OPERATIONS: Final = frozenset(
    """
    add apply care-gaps closure collect-data conforms convert current-canonical data-requirements
    diff docref document evaluate evaluate-measure events everything expand export extract filter
    find find-matches generate get-ws-binding-token graph graphql implements import lastn lookup
    match member-match merge meta meta-add meta-delete organizations package populate populatehtml
    populatelink practitioners preferred-id process-message purge questionnaire remove
    search-parameters snapshot specializations stats status submit submit-data subset subsumes
    transform translate translate-id validate validate-code versions
    """.split()
)


RESOURCE_TYPES: Final = frozenset(
    """
    Account ActivityDefinition ActorDefinition AdministrableProductDefinition AdverseEvent
    AllergyIntolerance Appointment AppointmentResponse ArtifactAssessment AuditEvent Basic Binary
    BiologicallyDerivedProduct BiologicallyDerivedProductDispense BodyStructure Bundle
    CapabilityStatement CarePlan CareTeam ChargeItem ChargeItemDefinition Citation Claim
    ClaimResponse ClinicalImpression ClinicalUseDefinition CodeSystem Communication
    CommunicationRequest CompartmentDefinition Composition ConceptMap Condition ConditionDefinition
    Consent Contract Coverage CoverageEligibilityRequest CoverageEligibilityResponse DetectedIssue
    Device DeviceAssociation DeviceDefinition DeviceDispense DeviceMetric DeviceRequest DeviceUsage
    DiagnosticReport DocumentReference Encounter EncounterHistory Endpoint EnrollmentRequest
    EnrollmentResponse EpisodeOfCare EventDefinition Evidence EvidenceReport EvidenceVariable
    ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag FormularyItem GenomicStudy Goal
    GraphDefinition Group GuidanceResponse HealthcareService ImagingSelection ImagingStudy
    Immunization ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide Ingredient
    InsurancePlan InventoryItem InventoryReport Invoice Library Linkage List Location
    ManufacturedItemDefinition Measure MeasureReport Medication MedicationAdministration
    MedicationDispense MedicationKnowledge MedicationRequest MedicationStatement
    MedicinalProductDefinition MessageDefinition MessageHeader MolecularSequence NamingSystem
    NutritionIntake NutritionOrder NutritionProduct Observation ObservationDefinition
    OperationDefinition OperationOutcome Organization OrganizationAffiliation
    PackagedProductDefinition Parameters Patient PaymentNotice PaymentReconciliation Permission
    Person PlanDefinition Practitioner PractitionerRole Procedure Provenance Questionnaire
    QuestionnaireResponse RegulatedAuthorization RelatedPerson RequestOrchestration Requirements
    ResearchStudy ResearchSubject RiskAssessment Schedule SearchParameter ServiceRequest Slot
    Specimen SpecimenDefinition StructureDefinition StructureMap Subscription SubscriptionStatus
    SubscriptionTopic Substance SubstanceDefinition SubstanceNucleicAcid SubstancePolymer
    SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial SupplyDelivery
    SupplyRequest Task TerminologyCapabilities TestPlan TestReport TestScript Transport ValueSet
    VerificationResult VisionPrescription
    """.split()
)


SYSTEM: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"

# The value set audit-purpose-of-use-vs of UZ Core 0.7.0. ETREAT is "break the glass".
PURPOSES: Final = frozenset(
    """
    TREAT ETREAT HOPERAT RECORDMGT HDIRECT HPRGRP HSYSADMIN PATRQT FAMRQT PWATRNY GOV DISASTER
    """.split()
)
