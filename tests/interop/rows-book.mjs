// Every command that the README and the pages of docs/ show in a block of a shell, word for word, page by page: in a network of
// its own, where the ports of the pages are free, with a keychain, and a browser that signs erin in.
// env: PROTECTED_SERVER (examples/protected_server.rs, built), TESTS (the tests of passavant-tests, built)
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const E = process.env, own = fileURLToPath(import.meta.url), here = dirname(own), root = join(here, '../..');
const must = (condition, text) => { if (!condition) throw new Error(text); }, sleep = ms => new Promise(r => setTimeout(r, ms));

/** What there is before a page's first command: see `begins`. */
const pages = {
  'README.md': 'guarded',
  'docs/getting-started.md': 'nothing',
  'docs/employee.md': 'company',
  'docs/it.md': 'signedIn',
  'docs/builders.md': 'signedIn',
  'docs/deployment.md': 'nothing',
  'docs/administration.md': 'signedIn',
  'docs/contributing.md': 'repository',
  'docs/upstreams/README.md': 'company',
  'docs/upstreams/entra.md': 'company',
  'docs/upstreams/google.md': 'company',
  'docs/upstreams/okta.md': 'company',
  'docs/upstreams/keycloak.md': 'company',
  'docs/upstreams/generic.md': 'company',
  'docs/upstreams/saml.md': 'saml',
  'docs/upstreams/provisioning.md': 'okta',
  'docs/accounts.md': 'company',
  'docs/vendors.md': 'company',
};
/** What is not run, and why. Nothing else is left out. */
const notRun = {
  './test': 'this is a part of it',
  './test --long': 'the same, with programs that are large',
  'cargo install --locked --path crates/passavant': 'builds for minutes what the other commands run',
  'passavant admin upstream check acme': 'asks an identity provider that is not there',
  'passavant admin upstream check entra': 'asks Microsoft',
  'passavant admin upstream check google': 'asks Google',
  'passavant admin upstream check okta': 'asks Okta',
  'passavant admin upstream check keycloak': 'asks a Keycloak that is not there',
  'passavant admin upstream check corp': 'asks a Keycloak that is not there',
  'curl -fsS -o metadata.xml https://sso.acme.example/realms/acme/protocol/saml/descriptor': 'asks a Keycloak that is not there; what one answered is in its place',
  'passavant admin upstream add google --preset google --issuer https://accounts.google.com --client-id 1234567890-abcdef.apps.googleusercontent.com --client-secret-file google.secret --hosted-domain acme.example --domain acme.example --display-name Google --just-in-time': 'takes a secret that Google made',
};
/** What stays up, until the page ends or begins anew, and what it says when it is ready. */
const stays = [
  [/^passavant (serve|guard)\b/, 'ready'],
  [/^cargo run --release -- demo$/, 'Sign in as'],
  [/^cargo run --release -p passavant-examples -- /, 'listens'],
  [/^npx -y @modelcontextprotocol\/server-everything/, 'listening on port 3001'],
];
const passphrase = 'a long passphrase of erin';
const typed = {
  'passavant admin user add erin --group engineering': `${passphrase}\n`,
  'passavant admin user add breakglass-one': 'a long passphrase for an emergency\n',
  'passavant admin user add breakglass-two': 'another long passphrase for an emergency\n',
};

/** The blocks of a page, and whether they are a shell's. */
const blocks = page => [...readFileSync(join(root, page), 'utf8').matchAll(/^ *```([^\n]*)\n(.*?)^ *```$/gms)]
  .map(([, kind, text]) => ({ kind, text, shell: ['sh', 'bash', 'shell', 'console'].includes(kind) }));
/** The command lines of a page, in order. */
const commands = page => blocks(page).filter(block => block.shell).flatMap(({ kind, text }) => {
  const lines = text.replaceAll('\\\n', ' ').split('\n').map(line => line.trim());
  return kind === 'console' ? lines.filter(line => line.startsWith('$ ')).map(line => line.slice(2)) : lines.filter(line => line && !line.startsWith('#'));
});

export default async function rows({ row, scratch }) {
  const book = ['README.md', ...readdirSync(join(root, 'docs'), { recursive: true }).map(name => `docs/${name}`).filter(name => name.endsWith('.md')).sort()];
  const shown = new Map(book.map(page => [page, commands(page)]).filter(([, lines]) => lines.length));
  await row('the book', 'each of its commands is run, or on the list of those that are not', () => {
    const all = [...shown.values()].flat();
    const hidden = book.flatMap(blocks).find(({ shell, text }) => !shell && /^ *(\$ |passavant |cargo |npx )/m.test(text));
    must(!hidden, `a command is in a block that is no shell's:\n${hidden?.text}`);
    for (const page of shown.keys()) must(pages[page], `${page} has commands: say in rows-book.mjs what there is before them`);
    for (const page of Object.keys(pages)) must(shown.has(page), `${page} has no commands: it goes from the list in rows-book.mjs`);
    const gone = [...Object.keys(notRun), ...Object.keys(typed)].filter(line => !all.includes(line));
    gone.push(...stays.filter(([start]) => !all.some(line => start.test(line))).map(([start]) => start));
    must(gone.length === 0, `no page says it any more, and it is on a list in rows-book.mjs: ${gone.join('; ')}`);
    return `${all.filter(line => !notRun[line]).length} of ${all.length}`;
  });
  const namespaces = [process.getuid() === 0 ? '-n' : '-rn', '--pid', '--fork'];
  if (spawnSync('unshare', [...namespaces, 'true']).status !== 0) return console.log('skipped the commands of the book: no namespaces of their own here');
  for (const page of shown.keys()) await row('the book', `the commands of ${page}`, async () => {
    must(existsSync(E.PROTECTED_SERVER ?? '') && existsSync(E.TESTS ?? ''), 'PROTECTED_SERVER and TESTS must name built binaries');
    const folder = mkdtempSync(join(scratch, 'book-'));
    const inside = ['sh', '-ec', 'ip link set lo up; exec "$0" "$@"', process.execPath, own, page];
    const child = spawn('unshare', [...namespaces, '--kill-child', ...inside], { env: { ...E, BOOK: folder }, stdio: ['ignore', 'pipe', 'inherit'] });
    process.on('exit', () => child.kill('SIGKILL'));
    let out = '';
    child.stdout.on('data', chunk => { out += chunk; });
    await new Promise(r => child.on('close', r));
    const { told, error } = JSON.parse(out || '{"error":"there is no namespace"}');
    must(!error, error);
    return told;
  });
}

// ---------- in the network of a page ----------
const person = E.BOOK, bin = join(person ?? '', 'bin'), up = [];
let place, env;

function begin() {
  mkdirSync(bin);
  const program = (name, text) => { writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`); chmodSync(join(bin, name), 0o755); };
  symlinkSync(E.PASSAVANT, join(bin, 'passavant'));
  program('xdg-open', `exec '${process.execPath}' '${join(here, 'visit.mjs')}' "$1" >> '${person}/browser.log' 2>&1`);
  // What `./test` has built, instead of building it again in another way.
  program('cargo', `case "$*" in
    'run --release -- '*) shift 3; exec passavant "$@" ;;
    'run --release -p passavant-examples -- '*) shift 5; exec '${E.PROTECTED_SERVER}' "$@" ;;
    'run -p passavant-tests --example '*) exec "${dirname(E.PASSAVANT)}/examples/$5" ;;
    'test -p passavant-tests --test all '*) shift 5; cd '${root}/tests'; exec '${E.TESTS}' "$@" ;;
    esac
    echo "no page says cargo $*" >&2; exit 1`);
  // A computer with two MCP clients on it.
  for (const name of ['.cursor', '.config/zed']) mkdirSync(join(person, name), { recursive: true });
  const path = `${bin}:${dirname(E.PYTHON)}:${E.PATH}`; // mdbook is one of Python's packages
  env = { HOME: person, PATH: path, LOGIN_USER: 'erin', LOGIN_PASS: passphrase, npm_config_offline: 'true' };
  const bus = spawnSync('dbus-daemon', ['--session', '--print-address', '--fork'], { env, encoding: 'utf8' }).stdout.trim();
  Object.assign(env, { DBUS_SESSION_BUS_ADDRESS: bus });
  const keyring = spawnSync('gnome-keyring-daemon', ['--unlock', '--components=secrets'], { env, input: 'keyring password', encoding: 'utf8' });
  must(bus && keyring.status === 0, `no keychain: ${keyring.stderr}`);
}
/** An empty folder, and nobody on the ports. */
async function anew() {
  for (const service of up.splice(0).reverse()) {
    must(service.child.exitCode === null && service.child.signalCode === null, `\`${service.line}\` ended by itself:\n${service.said}`);
    process.kill(-service.child.pid, 'SIGTERM');
    const code = await service.ended;
    must(code === 0 || !/^passavant|demo$/.test(service.line), `\`${service.line}\` ended with ${code} at SIGTERM:\n${service.said}`);
  }
  place = mkdtempSync(join(person, 'place-'));
  symlinkSync(join(here, 'node_modules'), join(place, 'node_modules')); // where npx looks first
}
async function run(line) {
  if (line.startsWith('passavant init ') && up.length) await anew();
  const stay = stays.find(([start]) => start.test(line));
  // A word in capitals stands for one that the reader has.
  const said = line.endsWith(' KID') ? line.replace('KID', keyBefore()) : line;
  const child = spawn('bash', ['-o', 'pipefail', '-c', stay ? `exec ${said}` : said], { cwd: place, env, detached: true });
  const service = { line, child, said: '', ended: new Promise(r => child.on('close', r)) };
  child.stdin.on('error', () => {}).end(typed[line] ?? '');
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { service.said += chunk; });
  const late = setTimeout(() => process.kill(-child.pid, 'SIGKILL'), 60_000);
  if (!stay) must(await service.ended === 0, `\`${line}\` exited ${child.exitCode ?? child.signalCode}:\n${service.said}`);
  else {
    while (!service.said.includes(stay[1])) {
      must(child.exitCode === null && child.signalCode === null, `\`${line}\` did not stay up:\n${service.said}`);
      await sleep(20);
    }
    up.push(service);
  }
  clearTimeout(late);
  if (/^cargo test /.test(line)) must(/ok\. [1-9]\d* passed/.test(service.said), `\`${line}\` runs no test:\n${service.said}`);
}
/** The key that signed until another one was made to sign at once: of two keys of one second, the later one waits for the next. */
const keyBefore = () => {
  for (const late = Date.now() + 3000; ;) {
    const keys = spawnSync('passavant', ['admin', '--json', 'key', 'list'], { cwd: place, env, encoding: 'utf8' });
    const before = JSON.parse(keys.stdout).find(key => key.state === 'verifies');
    if (before) return before.kid;
    must(Date.now() < late, `no key is there that only verifies: ${keys.stdout}`);
  }
};
/** The commands of that chapter, until one of them. */
async function gettingStarted(until) {
  const chapter = commands('docs/getting-started.md').filter(line => !notRun[line]), end = chapter.findIndex(line => line.startsWith(until));
  must(end > 0, `Getting started has no command \`${until}\``);
  for (const line of chapter.slice(0, end)) await run(line);
}
const begins = {
  nothing() {},
  company: () => gettingStarted('passavant login'),
  signedIn: () => gettingStarted('cargo run --release -- demo'),
  async okta() {
    await begins.company();
    await run('passavant admin upstream add okta --preset okta --issuer https://acme.okta.example --client-id 0oa1b2c3d4e5f6g7h8 --domain acme.example');
  },
  async saml() {
    await begins.company();
    cpSync(join(here, 'keycloak-metadata.xml'), join(place, 'metadata.xml'));
  },
  async guarded() {
    await begins.company();
    await run(commands('docs/builders.md')[0]); // the MCP server to guard
  },
  repository() {
    for (const name of ['README.md', 'SECURITY.md', 'CHANGELOG.md', 'book.toml', 'docs']) cpSync(join(root, name), join(place, name), { recursive: true });
  },
};
async function all(page) {
  begin();
  await anew();
  await begins[pages[page]]();
  const lines = commands(page).filter(line => !notRun[line]);
  for (const line of lines) await run(line);
  if (pages[page] === 'repository') {
    const files = folder => readdirSync(join(folder, 'docs'), { recursive: true, withFileTypes: true }).filter(entry => entry.isFile()).map(entry => join(entry.parentPath, entry.name)).sort();
    const text = folder => files(folder).map(file => readFileSync(file, 'utf8')).join('');
    must(text(place) === text(root), 'a page of docs/ is not what its command makes');
    const example = readFileSync(join(root, 'tests/tests/audiences.rs'), 'utf8');
    must(blocks(page).some(({ text }) => text === example), `${page} does not show tests/tests/audiences.rs as it is`);
  }
  await anew();
  return `${lines.length} commands`;
}
if (E.BOOK) {
  const outcome = await all(process.argv[2]).then(told => ({ told }), error => ({ error: String(error.message) }));
  process.stdout.write(JSON.stringify(outcome), () => process.exit()); // and with it all that is in the namespace
}
