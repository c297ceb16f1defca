// `passavant login` through the sign-in page, in a process that trusts NODE_EXTRA_CA_CERTS.
// env: PASSAVANT ISSUER LOGIN_USER LOGIN_PASS, and what passavant reads
import { spawn } from 'node:child_process';
import { browse, goOn } from './browser.mjs';

const E = process.env, child = spawn(E.PASSAVANT, ['login', '--no-browser', '--issuer', E.ISSUER, '--insecure-storage']);
let out = '';
for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => { out += chunk; });
const ended = new Promise(r => child.on('close', r));
for (let i = 0; i < 100 && !/https?:\/\/\S+code_challenge\S+\s/.test(out) && child.exitCode === null; i++) await new Promise(r => setTimeout(r, 50));
const url = /https?:\/\/\S+code_challenge\S+/.exec(out)?.[0];
if (url) await goOn(await browse(url, new URL(url).searchParams.get('redirect_uri'), { user: E.LOGIN_USER, pass: E.LOGIN_PASS }));
if (await ended) { console.error(out); process.exit(1); }
