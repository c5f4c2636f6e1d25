"""The search parameters as rows of text: `name: kind path path …`, read by `parameters`.

Names and kinds are those of FHIR R5. A path is dotted and walks through arrays; `patient` finds
only references to Patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COMMON: Final = """
_id: token id
_lastUpdated: date meta.lastUpdated
_profile: uri meta.profile
_tag: token meta.tag
"""

_PERSON: Final = """
identifier: token identifier
active: token active
name: string name.text name.family name.given name.prefix name.suffix
family: string name.family
given: string name.given
gender: token gender
birthdate: date birthDate
telecom: token telecom
address: string address.text address.line address.city address.district address.state
address-city: string address.city
address-state: string address.state
address-country: string address.country
"""

_PATIENT_SUBJECT: Final = """
identifier: token identifier
status: token status
subject: reference subject
patient: reference subject
encounter: reference encounter
"""

TABLE: Final[Mapping[str, str]] = {
    "AllergyIntolerance": """
        identifier: token identifier
        clinical-status: token clinicalStatus
        code: token code
        patient: reference patient
        date: date recordedDate
        """,
    "Appointment": """
        identifier: token identifier
        status: token status
        date: date start
        patient: reference subject participant.actor
        actor: reference participant.actor
        """,
    "AuditEvent": """
        date: date recorded
        action: token action
        category: token category
        code: token code
        outcome: token outcome.code
        patient: reference patient
        agent: reference agent.who
        entity: reference entity.what
        source: reference source.observer
        """,
    "Binary": "",
    "CarePlan": _PATIENT_SUBJECT + "category: token category\ndate: date period",
    "Condition": """
        identifier: token identifier
        clinical-status: token clinicalStatus
        verification-status: token verificationStatus
        category: token category
        code: token code
        subject: reference subject
        patient: reference subject
        encounter: reference encounter
        onset-date: date onsetDateTime onsetPeriod
        recorded-date: date recordedDate
        """,
    "Consent": """
        identifier: token identifier
        status: token status
        subject: reference subject
        patient: reference subject
        date: date date
        period: date period
        category: token category
        grantee: reference grantee
        """,
    "Device": """
        identifier: token identifier
        status: token status
        type: token type
        organization: reference owner
        """,
    "DiagnosticReport": _PATIENT_SUBJECT
    + """
        category: token category
        code: token code
        date: date effectiveDateTime effectivePeriod
        issued: date issued
        performer: reference performer
        result: reference result
        specimen: reference specimen
        based-on: reference basedOn
        """,
    "DocumentReference": """
        identifier: token identifier
        status: token status
        type: token type
        category: token category
        subject: reference subject
        patient: reference subject
        date: date date
        author: reference author
        custodian: reference custodian
        contenttype: token content.attachment.contentType
        """,
    "Encounter": """
        identifier: token identifier
        status: token status
        class: token class
        type: token type
        subject: reference subject
        patient: reference subject
        date: date actualPeriod
        participant: reference participant.actor
        service-provider: reference serviceProvider
        location: reference location.location
        episode-of-care: reference episodeOfCare
        part-of: reference partOf
        """,
    "EpisodeOfCare": """
        identifier: token identifier
        status: token status
        type: token type
        patient: reference patient
        organization: reference managingOrganization
        care-manager: reference careManager
        date: date period
        diagnosis-code: token diagnosis.condition.concept
        diagnosis-reference: reference diagnosis.condition.reference
        """,
    "HealthcareService": """
        identifier: token identifier
        active: token active
        name: string name
        organization: reference providedBy
        location: reference location
        """,
    "Immunization": """
        identifier: token identifier
        status: token status
        patient: reference patient
        date: date occurrenceDateTime
        vaccine-code: token vaccineCode
        """,
    "Location": """
        identifier: token identifier
        status: token status
        name: string name alias
        mode: token mode
        type: token type
        organization: reference managingOrganization
        partof: reference partOf
        address: string address.text address.line address.city address.district address.state
        """,
    "Medication": "identifier: token identifier\nstatus: token status\ncode: token code",
    "MedicationRequest": _PATIENT_SUBJECT
    + """
        intent: token intent
        code: token medication.concept
        medication: reference medication.reference
        authoredon: date authoredOn
        requester: reference requester
        """,
    "Observation": _PATIENT_SUBJECT
    + """
        category: token category
        code: token code
        component-code: token component.code
        combo-code: token code component.code
        date: date effectiveDateTime effectivePeriod effectiveInstant
        performer: reference performer
        specimen: reference specimen
        based-on: reference basedOn
        value-concept: token valueCodeableConcept
        """,
    "Organization": """
        identifier: token identifier
        active: token active
        name: string name alias
        type: token type
        partof: reference partOf
        address: string contact.address.text contact.address.line contact.address.city
        """,
    "Patient": _PERSON
    + """
        organization: reference managingOrganization
        general-practitioner: reference generalPractitioner
        language: token communication.language
        deceased: token deceasedBoolean
        death-date: date deceasedDateTime
        """,
    "Person": _PERSON + "organization: reference managingOrganization",
    "Practitioner": _PERSON + "qualification-code: token qualification.code",
    "PractitionerRole": """
        identifier: token identifier
        active: token active
        practitioner: reference practitioner
        organization: reference organization
        location: reference location
        role: token code
        specialty: token specialty
        date: date period
        """,
    "Procedure": _PATIENT_SUBJECT
    + """
        category: token category
        code: token code
        date: date occurrenceDateTime occurrencePeriod
        performer: reference performer.actor
        """,
    "Provenance": """
        target: reference target
        patient: reference patient
        agent: reference agent.who
        activity: token activity
        recorded: date recorded
        when: date occurredDateTime occurredPeriod
        """,
    "Questionnaire": """
        identifier: token identifier
        status: token status
        url: uri url
        name: string name
        title: string title
        version: token version
        """,
    "QuestionnaireResponse": _PATIENT_SUBJECT
    + """
        questionnaire: uri questionnaire
        author: reference author
        authored: date authored
        """,
    "RelatedPerson": _PERSON + "patient: reference patient\nrelationship: token relationship",
    "ServiceRequest": _PATIENT_SUBJECT
    + """
        intent: token intent
        priority: token priority
        category: token category
        code-concept: token code.concept
        code-reference: reference code.reference
        occurrence: date occurrenceDateTime occurrencePeriod
        authored: date authoredOn
        requester: reference requester
        performer: reference performer
        specimen: reference specimen
        based-on: reference basedOn
        """,
    "Specimen": """
        identifier: token identifier
        status: token status
        type: token type
        subject: reference subject
        patient: reference subject
        collected: date collection.collectedDateTime collection.collectedPeriod
        collector: reference collection.collector
        """,
    "Task": """
        identifier: token identifier
        status: token status
        intent: token intent
        code: token code
        patient: reference for
        subject: reference for
        owner: reference owner
        requester: reference requester
        focus: reference focus
        authored-on: date authoredOn
        """,
}
