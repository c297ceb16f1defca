"""Everything that scim2-tester checks of a SCIM server. Usage: scim_check.py BASE_URL TOKEN
Fails if a check fails, or if people and groups were not both checked."""

import sys

from httpx2 import Client
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

base, token = sys.argv[1:3]
http = Client(base_url=base.rstrip("/") + "/", headers={"Authorization": f"Bearer {token}"}, timeout=60)
results = check_server(SyncSCIMClient(http))
bad = [r for r in results if r.status is not Status.SUCCESS]
for r in bad:
    print(r.status.name, r.resource_type or "-", r.title, "|", str(r.reason).replace("\n", " ")[:400])
print(f"{len(results)} checks, {len(bad)} not passed")
sys.exit(1 if bad or not {"User", "Group"} <= {r.resource_type for r in results} else 0)
