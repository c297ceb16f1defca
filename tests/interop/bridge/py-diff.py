"""The same script with the Python SDK (mcp 2.3.0), once straight to an MCP server and once through
`passavant connect`: everything that comes must be the same. Prints one line of JSON.
env: PASSAVANT PASSAVANT_HOME MCP_URL SERVER=everything|canvas ERA=legacy|2026-07-28|auto [SCOPE: for the direct token] [SHOW=1]"""
import base64, json, logging, os, re, subprocess, sys, uuid, warnings
from contextlib import asynccontextmanager

import anyio, httpx2
from mcp import Client, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

warnings.simplefilter("ignore")
logging.disable(logging.ERROR)
E = os.environ
PASSAVANT, URL, SERVER, ERA = E["PASSAVANT"], E["MCP_URL"], E.get("SERVER", "everything"), E.get("ERA", "legacy")
TRICKY = 'héllo \u2028\u2029 "quoted"\\ \u0007 𝄞 🦀'
ANSWERS = {  # by property of the form
    "response": TRICKY, "name": "Ada", "color": "blue", "ok": True, "context": "here", "age": 41, "score": 1.5, "status": "pending", "verified": False,
    "untitledSingle": "active", "titledSingle": "low", "untitledMulti": ["read"], "titledMulti": ["bug", "docs"], "legacyEnum": "small",
}
GIVEN = {"test_sampling": {"prompt": TRICKY}, "test_elicitation": {"message": TRICKY}}


def plain(value):
    """Without what is random or counted by the process: state, listen ids, and the canvases of other runs."""
    def dump(v):
        return v.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(v, "model_dump") else repr(v)
    text = json.dumps(value, default=dump, ensure_ascii=False)
    text = re.sub(r'"listen-\d+"', '"listen-?"', re.sub(r'"requestState": "[^"]*"', '"requestState": "?"', text))
    return json.loads(re.sub(r',? ?\\*"zz-[0-9a-f-]{36}\\*"', "", text))


class Way:
    """One connection, and a record of each step: its outcome, and every message that came meanwhile."""

    def __init__(self):
        self.steps, self.came = [], []

    @asynccontextmanager
    async def recorded(self, transport):
        async with transport as (read, write), anyio.create_task_group() as tasks:
            sender, receiver = anyio.create_memory_object_stream(0)

            async def forward():
                async with sender:
                    async for item in read:
                        self.came.append(repr(item) if isinstance(item, Exception) else item.message)
                        await sender.send(item)
            tasks.start_soon(forward)
            yield receiver, write
            tasks.cancel_scope.cancel()

    async def step(self, name, work, raw=True, ordered=True):
        self.came.clear()
        outcome, result = {}, None
        try:
            with anyio.fail_after(30):
                result = await work()
            outcome["result"] = plain(result)
        except MCPError as error:
            outcome["error"] = plain({"code": error.code, "message": error.message, "data": error.data})
        except Exception as error:
            outcome["error"] = f"{type(error).__name__}: {error}"
        if not raw:
            await anyio.sleep(0.3)
        messages = [json.dumps(plain(message), ensure_ascii=False) for message in self.came]
        self.steps.append({"name": name, **outcome, **({"messages": messages if ordered else sorted(set(messages))} if raw else {})})
        return result


async def together(work):
    results = {}

    async def one(i):
        results[i] = await work(i)
    async with anyio.create_task_group() as tasks:
        for i in range(30):
            tasks.start_soon(one, i)
    return [results[i] for i in sorted(results)]


async def everything(way, client, modern):
    step = way.step
    for tool in (await step("tools/list", client.list_tools)).tools:
        # Under load the server repeats on a resumed stream what it was about to send on the earlier
        # one.
        await step(f"call {tool.name}", lambda: client.call_tool(tool.name, GIVEN.get(tool.name, {})), ordered=tool.name != "test_reconnection")
    await step("call test_x_mcp_header, not ASCII", lambda: client.call_tool("test_x_mcp_header", {"region": " héllo "}))
    await step("call unknown", lambda: client.call_tool("no_such_tool", {}))
    progress = []

    async def on_progress(*told):
        progress.append(told)

    async def with_progress():
        return [await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress), progress]
    await step("call test_tool_with_progress, progress", with_progress)
    if not modern:
        await step("logging/setLevel", lambda: client.set_logging_level("debug"))

    async def cancelled():
        with anyio.CancelScope() as scope:
            async def enough(*_):
                scope.cancel()
            return await client.call_tool("test_tool_with_progress", {}, progress_callback=enough)
        return "cancelled"
    await step("cancel at the first progress", cancelled, raw=False)  # How far the server came is chance.
    await step("call after the cancellation", lambda: client.call_tool("test_simple_text", {}))

    await step("resources/list", client.list_resources)
    await step("resources/templates/list", client.list_resource_templates)
    for uri in ["test://static-text", "test://static-binary", "test://template/é 7/data", "test://nowhere"]:
        await step(f"read {uri}", lambda: client.read_resource(uri))
    await step("subscribe", lambda: client.subscribe_resource("test://watched-resource"))
    await step("unsubscribe", lambda: client.unsubscribe_resource("test://watched-resource"))

    for prompt in (await step("prompts/list", client.list_prompts)).prompts:
        given = {argument.name: f"test://{TRICKY}" for argument in prompt.arguments or []}
        await step(f"prompt {prompt.name}", lambda: client.get_prompt(prompt.name, given))
    await step("prompt unknown", lambda: client.get_prompt("no_such_prompt"))
    big = "Ångström \u2028" * 40_000  # The SDK takes events of 1 MiB.
    await step("prompt of half a MB", lambda: client.get_prompt("test_prompt_with_arguments", {"arg1": big, "arg2": ""}))
    await step("30 prompts at once", lambda: together(lambda i: client.get_prompt("test_prompt_with_arguments", {"arg1": str(i), "arg2": ""})), ordered=False)
    ref = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
    await step("complete", lambda: client.complete(ref, {"name": "arg1", "value": "x"}))

    async def listen():
        async with client.listen(tools_list_changed=True) as events:
            await client.call_tool("test_trigger_tool_change", {})
            with anyio.fail_after(5):
                return [events.honored, type(await anext(events)).__name__]
    if modern:
        await step("listen, one event, close", listen, ordered=False)
        await step("call after the subscription", lambda: client.call_tool("test_trigger_tool_change", {}))


async def canvas(way, client, _):
    step, name = way.step, f"zz-{uuid.uuid4()}"
    await step("tools/list", client.list_tools)
    await step("list", lambda: client.call_tool("canvas_list", {}))
    await step("read welcome", lambda: client.call_tool("canvas_read", {"canvas": "welcome"}))
    await step("read nowhere", lambda: client.call_tool("canvas_read", {"canvas": TRICKY}))
    shape = {"kind": "text", "x": 1, "y": -2, "label": TRICKY}
    await step("draw", lambda: client.call_tool("canvas_draw", {"canvas": name, "shape": shape}))
    await step("read it", lambda: client.call_tool("canvas_read", {"canvas": name}))
    await step("call unknown", lambda: client.call_tool("no_such_tool", {}))
    await step("resources/list", client.list_resources)
    await step("30 reads at once", lambda: together(lambda _: client.call_tool("canvas_read", {"canvas": name})), ordered=False)


async def walk(transport, able):
    way = Way()

    async def sampling(_, params):
        return types.CreateMessageResult(role="assistant", model="m", content=types.TextContent(type="text", text=f"heard {params.messages[0].content.text}"))

    async def elicitation(_, params):
        return types.ElicitResult(action="accept", content={key: ANSWERS[key] for key in params.requested_schema["properties"]})

    async def roots(_):
        return types.ListRootsResult(roots=[types.Root(uri="file:///tmp", name="one")])
    more = {"sampling_callback": sampling, "elicitation_callback": elicitation, "list_roots_callback": roots} if able else {}
    async with Client(way.recorded(transport), mode=ERA, log_level="debug", cache=None, **more) as client:
        way.steps.append({"name": "connect", "result": plain([client.protocol_version, client.server_info, client.server_capabilities, client.instructions])})
        modern = client.protocol_version >= "2026-07-28"
        if not modern:
            await way.step("ping", client.send_ping)
        if able:
            await (canvas if SERVER == "canvas" else everything)(way, client, modern)
        else:
            for name in ["test_missing_capability", "test_sampling", "test_elicitation", "test_streaming_elicitation", "test_input_required_result_capabilities"]:
                await way.step(f"call {name} without capabilities", lambda: client.call_tool(name, GIVEN.get(name, {})))
        unknown = types.Request[dict, str](method="no/such/method", params={})
        await way.step("unknown method", lambda: client.session.send_request(unknown, types.EmptyResult))
    return way.steps


def run(*args):
    return subprocess.run([PASSAVANT, *args], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def scope():
    return json.loads(base64.urlsafe_b64decode(run("token", URL).split(".")[1] + "=="))["scope"]


async def main():
    differences, scopes, compared = [], [], 0
    for able in [True] if SERVER == "canvas" else [True, False]:
        token = run("token", URL, *(["--scope", E["SCOPE"]] if "SCOPE" in E else []))
        async with httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as http:
            one = await walk(streamable_http_client(URL, http_client=http), able)
        scopes.append(scope())
        two = await walk(stdio_client(StdioServerParameters(command=PASSAVANT, args=["connect", URL], env={"PASSAVANT_HOME": E["PASSAVANT_HOME"]})), able)
        scopes.append(scope())  # Wider after a step-up.
        for i in range(max(len(one), len(two))):
            a, b = (steps[i] if i < len(steps) else None for steps in (one, two))
            compared += 1
            if a != b:
                differences.append({"step": (a or b)["name"], "direct": a, "bridged": b})
        if "SHOW" in E:
            print(json.dumps(two, indent=1), file=sys.stderr)
    ok = not differences
    print(json.dumps({"ok": ok, "era": ERA, "server": SERVER, "compared": compared, "scopes": scopes, "explained": [], "differences": differences}, ensure_ascii=False))
    return 0 if ok else 1

sys.exit(anyio.run(main))
