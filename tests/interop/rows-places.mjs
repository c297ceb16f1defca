// The environments of people's computers and of servers: a wrong clock, an outbound proxy, a
// company's own certificate authority, a keychain that never answers, a browser on another machine,
// an upgrade of the program, two sign-ins in one MCP client's config, a certificate that is
// renewed.
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { connect as connectTls } from 'node:tls';
import { browse, goOn } from './browser.mjs';

const sleep = ms => new Promise(r => setTimeout(r, ms));
const initialize = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n';

export default async function rows({ row, run, must, startDemo, idp, notes, admin, enrol, password, scratch, freePort, E }) {
  const home = join(scratch, 'places'), folder = name => mkdtempSync(join(tmpdir(), `passavant-${name}-`));
  let enrolled;
  const signedIn = async () => { await (enrolled ??= enrol('erin', home)); return home; };
  const attempt = (args, env = {}, options = {}) => spawnSync(E.PASSAVANT, args, { env: { ...process.env, PASSAVANT_HOME: home, ...env }, encoding: 'utf8', timeout: 60_000, ...options });
  const said = done => done.stdout + done.stderr;
  const forgetTokens = () => readdirSync(home).filter(name => name.includes('access-')).forEach(name => rmSync(join(home, name)));
  /** A program that waits for a browser: its URL, and how it ends. */
  const waiting = (args, env = {}, stdin = 'ignore') => {
    const child = spawn(E.PASSAVANT, args, { env: { ...process.env, ...env }, stdio: [stdin, 'pipe', 'pipe'] });
    const seen = { child, out: '', ended: new Promise(r => child.on('close', r)) };
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { seen.out += chunk; });
    const urls = () => [...seen.out.matchAll(/https?:\/\/\S+code_challenge\S+/g)].map(found => found[0]);
    seen.url = async (n = 0) => {
      for (let i = 0; i < 200 && urls().length <= n && child.exitCode === null; i++) await sleep(50);
      return urls()[n];
    };
    return seen;
  };
  const erin = { user: 'erin', pass: password('erin') };
  const back = url => new URL(url).searchParams.get('redirect_uri');

  await row('passavant', 'a clock that is off: told whose and by how much, and it works all the same', async () => {
    await signedIn();
    const library = join(scratch, 'clock.so'), source = join(scratch, 'clock.c');
    writeFileSync(source, `#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *t) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int done = real(which, t);
  const char *off = getenv("CLOCK_IS_OFF");
  if (!done && off && which == CLOCK_REALTIME) t->tv_sec += atol(off);
  return done;
}`);
    run('cc', ['-shared', '-fPIC', '-o', library, source, '-ldl']);
    const off = seconds => ({ LD_PRELOAD: library, CLOCK_IS_OFF: String(seconds) });
    for (const seconds of [-3600, -180, -45, 45, 180, 3600]) {
      const tells = (what, text) => {
        must(/clock/i.test(text) && new RegExp(`\\b(${[-1, 0, 1].map(more => Math.abs(seconds) + more).join('|')}) s`).test(text), `${what} at ${seconds} s: ${text}`);
        must(!/enrolment was ended|not enrolled|sign in again/i.test(text), `${what} at ${seconds} s sends the person away: ${text}`);
      };
      for (const args of [['call', notes.mcp, 'note_search', '{"words":"x"}'], ['servers'], ['doctor', notes.mcp]]) {
        forgetTokens();
        const done = attempt(args, off(seconds));
        must(done.status === 0, `${args[0]} at ${seconds} s: ${said(done)}`);
        tells(args[0], said(done));
      }
      forgetTokens();
      const bridged = attempt(['connect', notes.mcp], off(seconds), { input: initialize });
      must(JSON.parse(bridged.stdout.split('\n')[0]).result, `bridge at ${seconds} s: ${said(bridged)}`);
      tells('connect', bridged.stderr);
    }
    const late = await enrol('max', join(scratch, 'places-late'), { env: off(180) });
    must(/clock/i.test(late.out + late.err), `login: ${late.out}${late.err}`);
    // Nothing is said about a clock that is right.
    for (const seconds of [0, 20]) must(!/clock/i.test(said(attempt(['servers'], off(seconds)))), `${seconds} s are nothing to tell`);
  });

  await row('passavant', 'entries that outlive an upgrade and XDG_CONFIG_HOME; two sign-ins side by side; a server that is there already', async () => {
    await signedIn();
    const entries = person => JSON.parse(readFileSync(join(person, '.cursor/mcp.json'))).mcpServers;
    const install = (person, env = {}, program = E.PASSAVANT) => run(program, ['install', 'cursor'], { HOME: person, PASSAVANT_HOME: home, XDG_CONFIG_HOME: '', ...env });
    const fresh = () => { const person = folder('desk'); mkdirSync(join(person, '.cursor')); return person; };
    // The program is a link into a folder named after its version.
    let person = fresh();
    const bin = join(person, 'bin'), of = version => join(person, 'opt', version);
    for (const path of [bin, of('1'), of('2')]) mkdirSync(path, { recursive: true });
    copyFileSync(E.PASSAVANT, join(of('1'), 'passavant'));
    symlinkSync(join(of('1'), 'passavant'), join(bin, 'passavant'));
    const path = `${bin}:${process.env.PATH}`;
    run('sh', ['-c', 'passavant install cursor'], { HOME: person, PASSAVANT_HOME: home, XDG_CONFIG_HOME: '', PATH: path });
    renameSync(join(of('1'), 'passavant'), join(of('2'), 'passavant'));
    rmSync(join(bin, 'passavant'));
    symlinkSync(join(of('2'), 'passavant'), join(bin, 'passavant'));
    const entry = entries(person).notes;
    const answer = spawnSync(entry.command, entry.args, { env: { HOME: person, PATH: path, ...entry.env }, input: initialize, encoding: 'utf8', timeout: 30_000 });
    must(answer.stdout?.includes('"result"'), `after the upgrade: ${JSON.stringify(entry)} ${answer.error ?? said(answer)}`);
    // Signed in under XDG_CONFIG_HOME; the MCP client passes on neither that nor PASSAVANT_HOME.
    person = fresh();
    const shell = { HOME: person, PASSAVANT_HOME: '', XDG_CONFIG_HOME: join(person, 'config') };
    const there = waiting(['login', '--no-browser', '--insecure-storage', '--issuer', idp], shell);
    await goOn(await browse(await there.url(), back(await there.url()), erin));
    must(await there.ended === 0, there.out);
    run(E.PASSAVANT, ['install', 'cursor'], shell);
    const bare = entries(person).notes;
    const bridged = spawnSync(bare.command, bare.args, { env: { HOME: person, PATH: process.env.PATH, ...bare.env }, input: initialize, encoding: 'utf8', timeout: 30_000 });
    must(bridged.stdout.includes('"result"'), `without XDG_CONFIG_HOME: ${JSON.stringify(bare)} ${said(bridged)}`);
    // Two sign-ins.
    person = fresh();
    const other = join(scratch, 'places-max');
    await enrol('max', other);
    install(person);
    const mine = Object.keys(entries(person)).length;
    install(person, { PASSAVANT_HOME: other });
    const homes = new Set(Object.values(entries(person)).map(entry => entry.env?.PASSAVANT_HOME));
    must(Object.keys(entries(person)).length > mine && homes.has(home) && homes.has(other), JSON.stringify(entries(person)));
    run(E.PASSAVANT, ['uninstall', '--all'], { HOME: person, PASSAVANT_HOME: other, XDG_CONFIG_HOME: '' });
    run(E.PASSAVANT, ['uninstall', '--all'], { HOME: person, PASSAVANT_HOME: home, XDG_CONFIG_HOME: '' });
    must(!existsSync(join(person, '.cursor/mcp.json')) || Object.keys(entries(person)).length === 0, 'entries are left behind');
    // Another entry leads to the same server.
    person = fresh();
    writeFileSync(join(person, '.cursor/mcp.json'), JSON.stringify({ mcpServers: { mine: { url: notes.mcp } } }));
    must(install(person).includes('mine'), 'nothing is said of the entry for the same server');
    must(entries(person).mine.url === notes.mcp, 'it was taken away unasked');
  });

  await row('dbus-daemon', 'a keychain that never answers: said within seconds, by commands and the bridge', async () => {
    const place = folder('bus'), address = `unix:path=${place}/bus`;
    writeFileSync(join(place, 'secrets.service'), '[D-BUS Service]\nName=org.freedesktop.secrets\nExec=/bin/sleep 600\n');
    writeFileSync(join(place, 'bus.conf'), `<busconfig><type>session</type><listen>${address}</listen><servicedir>${place}</servicedir><limit name="service_start_timeout">600000</limit>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`);
    const bus = spawn('dbus-daemon', ['--config-file', join(place, 'bus.conf'), '--nofork'], { stdio: 'ignore' });
    try {
      for (let i = 0; i < 100 && !existsSync(join(place, 'bus')); i++) await sleep(50);
      const env = { HOME: place, PASSAVANT_HOME: join(place, 'home'), DBUS_SESSION_BUS_ADDRESS: address };
      const began = Date.now();
      const status = attempt(['status'], env);
      must(status.status !== null && said(status).includes('--insecure-storage') && Date.now() - began < 20_000, `status after ${Date.now() - began} ms: ${said(status)}`);
      const bridged = attempt(['connect', notes.mcp], env, { input: initialize, timeout: 30_000 });
      must(/"id":1.*"error"|"error".*"id":1/.test(bridged.stdout), `the bridge says nothing to its client: ${said(bridged)}`);
      return `${Date.now() - began} ms`;
    } finally { bus.kill(); }
  });

  await row('passavant', 'an HTTP proxy on the way out, and what NO_PROXY leaves out of it', async () => {
    const asked = [];
    const proxy = createServer(socket => socket.on('error', () => {}).once('data', bytes => { asked.push(String(bytes).split('\r\n')[0]); socket.end('HTTP/1.1 403 Forbidden\r\n\r\n'); }));
    await new Promise(r => proxy.listen(0, '127.0.0.1', r));
    const env = { PASSAVANT_HOME: folder('proxy'), HTTPS_PROXY: `http://127.0.0.1:${proxy.address().port}` };
    const ask = (issuer, no) => new Promise(resolve => {
      const child = spawn(E.PASSAVANT, ['login', '--issuer', issuer, '--no-browser', '--insecure-storage'], { env: { ...process.env, ...env, NO_PROXY: no } });
      let out = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { out += chunk; });
      child.on('close', code => resolve({ code, out }));
    });
    try {
      const through = await ask('https://idp.corp.test', 'localhost,127.0.0.1');
      must(through.code !== 0 && asked.some(line => line.startsWith('CONNECT idp.corp.test:443')), `${asked}: ${through.out}`);
      must(/proxy/i.test(through.out), `the proxy is not named: ${through.out}`);
      asked.length = 0;
      for (const no of ['idp.corp.test', '.corp.test', 'corp.test', '*']) must((await ask('https://idp.corp.test', no)).code !== 0 && asked.length === 0, `NO_PROXY=${no}: ${asked}`);
    } finally { proxy.close(); }
  });

  await row('openssl', "a company's own authority: what to do is said, and a roots file that holds nothing is refused by name", async () => {
    const company = await startDemo('--tls'), env = { PASSAVANT_HOME: folder('roots'), PASSAVANT_EXTRA_ROOTS: '' };
    const login = (...more) => attempt(['login', '--issuer', company.idp, '--no-browser', '--insecure-storage', ...more], env);
    const unknown = login();
    must(unknown.status !== 0 && unknown.stderr.includes('--extra-roots') && !/UnknownIssuer|invalid peer/.test(unknown.stderr), said(unknown));
    const place = folder('der');
    run('openssl', ['x509', '-in', company.roots, '-outform', 'DER', '-out', join(place, 'roots.der')]);
    writeFileSync(join(place, 'empty.pem'), '');
    for (const file of ['roots.der', 'empty.pem', 'not-there.pem']) {
      const refused = login('--extra-roots', join(place, file));
      must(refused.status !== 0 && refused.stderr.includes(file) && !/^ *at |panicked/m.test(refused.stderr), said(refused));
    }
    const child = waiting(['login', '--issuer', company.idp, '--no-browser', '--insecure-storage', '--extra-roots', company.roots], env);
    must(await child.url(), child.out);
    child.child.kill();
    await child.ended;
  });

  await row('passavant', 'a browser on another machine: the address it ends at is pasted; the URL is printed whoever says that a browser opened', async () => {
    const place = folder('elsewhere'), bin = join(place, 'bin');
    mkdirSync(bin);
    for (const name of ['xdg-open', 'gio', 'gnome-open', 'kde-open', 'wslview']) { writeFileSync(join(bin, name), '#!/bin/sh\nexit 0\n'); chmodSync(join(bin, name), 0o755); }
    const env = { PASSAVANT_HOME: join(place, 'home'), PATH: `${bin}:${process.env.PATH}` };
    const login = waiting(['login', '--issuer', idp, '--insecure-storage'], env, 'pipe');
    for (let tab = 0; tab < 2; tab++) {
      const url = await login.url(tab);
      must(url, login.out);
      if (tab === 0) {
        // A line that is not the response to this request has no effect.
        login.child.stdin.write(`${back(url)}?code=old&state=old\nhello\n\n`);
        must((await fetch(`${back(url)}?code=old&state=old`)).status === 400, 'a stray callback is taken');
        await sleep(300);
        must(login.child.exitCode === null, login.out);
      }
      const { url: end, cookie } = await browse(url, back(url), erin);
      must(end && cookie, 'the browser does not come to the callback');
      login.child.stdin.write(`${end.href}\n`);
      if (tab === 0) await login.url(1);
    }
    must(await login.ended === 0 && login.out.includes('Signed in as erin'), login.out);
  });

  await row('openssl', 'a certificate that is renewed while `passavant serve` runs: read again by itself or at SIGHUP; check finds a key that does not fit', async () => {
    const place = folder('renewed'), at = name => join(place, name), [port, adminPort] = [await freePort(), await freePort()];
    for (const name of ['one', 'two'])
      run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', at(`${name}.key`), '-out', at(`${name}.pem`)]);
    const put = (certificate, key = certificate) => { copyFileSync(at(`${certificate}.pem`), at('now.pem')); copyFileSync(at(`${key}.key`), at('now.key')); chmodSync(at('now.key'), 0o600); };
    put('one');
    run(E.PASSAVANT, ['init', at('server')]);
    const config = at('server/passavant.toml');
    writeFileSync(config, `[keys]\nfile = "passavant.key"\n[admin]\nlisten = "127.0.0.1:${adminPort}"\nsecret_file = "passavant.admin-secret"
[idp]\nissuer = "https://127.0.0.1:${port}"\nlisten = "127.0.0.1:${port}"\ndatabase = "sqlite:idp.db"\nname = "Acme"\ntls_certificate = "${at('now.pem')}"\ntls_key = "${at('now.key')}"\n`);
    const server = spawn(E.PASSAVANT, ['serve', '--config', config], { cwd: at('server'), stdio: 'ignore' });
    try {
      const connect = () => new Promise(resolve => {
        const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false }, () => resolve(socket)).on('error', () => resolve());
      });
      const served = async () => { const socket = await connect(), name = socket?.getPeerCertificate().subject.CN; socket?.destroy(); return name; };
      for (let i = 0; i < 100 && await served() !== 'one'; i++) await sleep(100);
      const held = await connect();
      put('two');
      server.kill('SIGHUP');
      for (let i = 0; i < 50 && await served() !== 'two'; i++) await sleep(100);
      must(await served() === 'two' && server.exitCode === null && server.signalCode === null, `${await served()} is served; ${server.signalCode}`);
      // A connection that was opened before continues.
      const answer = await new Promise(r => { held.once('data', r).once('error', r); held.write('GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n'); });
      must(String(answer).startsWith('HTTP/1.1 200'), String(answer));
      held.destroy();
      // A certificate and key that do not match are not used, and `check` says so.
      put('one', 'two');
      server.kill('SIGHUP');
      await sleep(1000);
      must(await served() === 'two' && server.exitCode === null, 'a key that does not fit was taken');
      const check = attempt(['check', '--config', config]);
      must(check.status !== 0 && said(check).includes('now.key'), said(check));
    } finally { server.kill(); }
  });
}
