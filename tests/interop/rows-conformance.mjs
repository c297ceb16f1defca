// The MCP conformance suite's client scenarios about authorization, including extensions. Each runs
// in a process of its own, because only then the client's exit code counts and no scenario is
// skipped silently.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Scenarios in which a client that refuses may end with an error. */
const mayFail = ['scope-retry-limit', 'resource-mismatch', 'iss-supported-missing', 'iss-wrong-issuer', 'iss-unexpected', 'iss-normalized', 'metadata-issuer-mismatch'];

export default async function rows({ row, run, must, suite, node24, conformance, here, scratch, E }) {
  const expected = JSON.parse(readFileSync(join(here, 'expected-failures.json')));
  const list = (...args) => run(node24, [conformance, 'list', '--client', ...args]);
  const names = (text, pattern) => [...text.matchAll(pattern)].map(match => match[1]);
  const extensions = names(list(), /^ *- (auth\/\S+) \[extension\]/gm);
  const failed = new Set();
  const scenario = (wire, name) => new Promise(resolve => {
    const out = join(scratch, 'suite', wire);
    const child = spawn(node24, [conformance, 'client', '--command', `exec ${E.CONFORMANCE_CLIENT}`, '--scenario', name, '--spec-version', wire, '--force', '-o', out]);
    let told = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', c => { told += c; });
    child.on('close', code => {
      const folder = existsSync(join(out, 'auth')) ? readdirSync(join(out, 'auth')).find(f => f.startsWith(`${name.slice(5)}-20`)) : undefined;
      const file = folder && join(out, 'auth', folder, 'checks.json');
      const checks = file && existsSync(file) ? JSON.parse(readFileSync(file)) : [];
      const bad = checks.filter(c => ['FAILURE', 'WARNING'].includes(c.status)).map(c => c.id);
      const worked = checks.some(c => ['valid-bearer-token', 'sep-1932-client-fresh-proof'].includes(c.id) && c.status === 'SUCCESS') || mayFail.includes(name.slice(5));
      resolve({ name, ok: code === 0 && bad.length === 0 && checks.some(c => c.status === 'SUCCESS') && worked, checks: checks.length, told: `exit ${code}, ${checks.length} checks, bad: ${bad}\n${told.slice(-800)}` });
    });
  });
  for (const [wire, core] of [['2025-03-26', 2], ['2025-06-18', 3], ['2025-11-25', 14], ['2026-07-28', 25]]) {
    await row('MCP conformance', `client --suite auth and more, ${wire}`, async () => {
      const own = names(list('--spec-version', wire), /^ *- (auth\/\S+)/gm);
      must(own.length === core, `${own.length} scenarios instead of ${core}: the suite changed`);
      const all = wire >= '2025-11-25' ? [...own, ...extensions] : own;
      must(wire < '2025-11-25' || extensions.length === 6, `${extensions.length} extensions instead of 6`);
      const outcomes = [];
      for (let i = 0; i < all.length; i += 2) outcomes.push(...await Promise.all(all.slice(i, i + 2).map(name => scenario(wire, name))));
      const problems = [];
      for (const { name, ok, told } of outcomes) {
        if (!ok) failed.add(name);
        if (!ok && !expected[name]) problems.push(`${name} failed: ${told}`);
        if (ok && expected[name]) problems.push(`${name} passes: take it out of expected-failures.json`);
      }
      must(problems.length === 0, problems.join('\n'));
      const good = outcomes.filter(o => o.ok);
      return `${suite}: ${good.length} of ${outcomes.length} scenarios, ${good.reduce((n, o) => n + o.checks, 0)} checks`;
    });
  }
  await row('MCP conformance', 'every expected failure has a reason and happened', () => {
    for (const [name, reason] of Object.entries(expected)) {
      must(reason.length > 30, `${name} gives no reason`);
      must(failed.has(name), `${name} did not fail, or was not run`);
    }
    return `${Object.keys(expected).length} of them`;
  });
}
