"""An embedded DHP platform for trials and tests; it imports no other package of the gateway.

A test double that shared code with the tested program would share its faults.

sandbox = Sandbox(SandboxOptions(port=0), log=print)
await sandbox.start()
...  # sandbox.fhir_base_url, sandbox.token_url
await sandbox.stop()
"""

from __future__ import annotations
