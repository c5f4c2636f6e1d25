"""An embedded DHP platform for trials and tests; it imports no other package of the gateway.

sandbox = Sandbox(SandboxOptions(port=0), log=print)
await sandbox.start()
...  # sandbox.fhir_base_url, sandbox.token_url
await sandbox.stop()
"""

from __future__ import annotations
