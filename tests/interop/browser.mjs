// A tiny browser: GET, follow redirects, fill the first <form method=post>, until a redirect goes to `stopAt`. Never requests stopAt.
// opts: user, pass, submit ('name=value' extra/override field), jar (of an earlier call: the same browser), log(fn). Node's fetch adds by itself: sec-fetch-mode: cors, accept-language: *, user-agent: node.
class Jar {
  c = [];
  constructor(log) { this.log = log; }
  store(url, res) {
    const u = new URL(url);
    for (const line of res.headers.getSetCookie()) {
      const [nv, ...attrs] = line.split(';').map(s => s.trim());
      const i = nv.indexOf('='), name = nv.slice(0, i), value = nv.slice(i + 1), a = {};
      for (const t of attrs) { const [k, v = ''] = t.split(/=(.*)/s); a[k.toLowerCase()] = v; }
      const path = a.path?.startsWith('/') ? a.path : u.pathname.replace(/\/[^/]*$/, '') || '/';
      const gone = a['max-age'] !== undefined ? Number(a['max-age']) <= 0 : a.expires ? Date.parse(a.expires) <= Date.now() : false;
      this.c = this.c.filter(x => !(x.name === name && x.host === u.hostname && x.path === path));
      if (!gone) this.c.push({ name, value, host: u.hostname, path, everywhere: a.samesite?.toLowerCase() === 'none' });
      this.log({ setCookie: line });
    }
  }
  /** `crossSite`: a form of another site is posted, with which browsers send no cookie that is not meant for that. */
  header(url, crossSite = false) {
    const u = new URL(url);
    return this.c.filter(x => (x.everywhere || !crossSite) && x.host === u.hostname && (u.pathname === x.path || u.pathname.startsWith(x.path.endsWith('/') ? x.path : x.path + '/')))
      .sort((a, b) => b.path.length - a.path.length).map(x => `${x.name}=${x.value}`).join('; ');
  }
}
const unesc = s => s.replace(/&(#x[0-9a-f]+|#\d+|amp|lt|gt|quot|apos);/gi, (_, e) =>
  e[0] === '#' ? String.fromCodePoint(/^#x/i.test(e) ? parseInt(e.slice(2), 16) : parseInt(e.slice(1), 10))
    : { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }[e.toLowerCase()]);
const attrs = tag => {
  const o = {};
  for (const m of tag.replace(/^<\w+/, '').matchAll(/([^\s"'<>\/=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'=<>`]+)))?/g))
    o[m[1].toLowerCase()] = unesc(m[2] ?? m[3] ?? m[4] ?? '');
  return o;
};
function parseForm(html) {
  for (const m of html.replace(/<!--[\s\S]*?-->/g, '').matchAll(/(<form\b[^>]*>)([\s\S]*?)<\/form>/gi)) {
    const f = attrs(m[1]);
    if ((f.method ?? 'get').toLowerCase() !== 'post') continue;
    const fields = []; let button;
    for (const t of m[2].matchAll(/<(input|button|select|textarea)\b[^>]*>/gi)) {
      const a = attrs(t[0]), kind = t[1].toLowerCase(), type = (a.type ?? (kind === 'button' ? 'submit' : 'text')).toLowerCase();
      if ('disabled' in a) continue;
      // The first one is what Enter presses, also where it has no name.
      if (type === 'submit' || type === 'image') { button ??= a.name ? [a.name, a.value ?? ''] : []; continue; }
      if (!a.name) continue;
      if (type === 'button' || type === 'reset' || type === 'file') continue;
      if ((type === 'checkbox' || type === 'radio') && !('checked' in a)) continue;
      fields.push([a.name, a.value ?? (type === 'checkbox' ? 'on' : ''), type]);
    }
    return { action: f.action, fields, button };
  }
  return null;
}
export async function browse(start, stopAt, { user = '', pass = '', submit, log = () => {}, jar = new Jar(log) } = {}) {
  // The forms that were filled: one that comes back has refused what was typed.
  const trail = [], logins = new Set(); let url = String(start), method = 'GET', body, pageOrigin;
  for (let hop = 0; hop < 20; hop++) {
    const headers = { accept: 'text/html,application/xhtml+xml' };
    // Ports of one host are one site; the rows take origins for sites, which is stricter.
    const ck = jar.header(url, method === 'POST' && pageOrigin !== new URL(url).origin); if (ck) headers.cookie = ck;
    if (method === 'POST') { headers['content-type'] = 'application/x-www-form-urlencoded'; headers.origin = pageOrigin; headers.referer = trail.at(-1).url; }
    const res = await fetch(url, { method, headers, body, redirect: 'manual' });
    jar.store(url, res);
    trail.push({ method, url, status: res.status, location: res.headers.get('location') ?? undefined }); log(trail.at(-1));
    if (res.status >= 300 && res.status < 400) {
      await res.text();
      const next = new URL(res.headers.get('location'), url);
      if (next.href === stopAt || next.href.startsWith(stopAt + '?') || next.href.startsWith(stopAt + '#')) return { url: next, trail, jar, cookie: u => jar.header(u) };
      if (res.status !== 307 && res.status !== 308) { method = 'GET'; body = undefined; }
      url = next.href; continue;
    }
    const html = await res.text();
    const onward = /url=(.*)/.exec(res.headers.get('refresh') ?? '')?.[1];
    if (onward) {
      const next = new URL(onward, url);
      if (next.href.startsWith(stopAt + '?')) return { url: next, html, trail, jar, cookie: u => jar.header(u) };
      method = 'GET'; body = undefined; url = next.href; continue;
    }
    const form = parseForm(html);
    if (res.status >= 400 && !form) throw new Error(`login: HTTP ${res.status} at ${url}: ${html.replace(/<style[\s\S]*?<\/style>|<[^>]+>/g, ' ').replace(/\s+/g, ' ').slice(0, 300)}`);
    if (!form) return { url: null, html, trail, jar, cookie: u => jar.header(u) };
    const q = new URLSearchParams(); let isLogin = false;
    for (const [n, v, type] of form.fields) {
      if (type !== 'hidden' && /^(username|user|login|email|identifier)$/i.test(n)) { q.append(n, user); isLogin = true; }
      else if (type === 'password') { q.append(n, pass); isLogin = true; }
      else q.append(n, v);
    }
    const action = new URL(form.action || url, url), place = action.origin + action.pathname;
    if (isLogin && logins.has(place)) throw new Error(`login refused (form came back, HTTP ${res.status}): ${html.replace(/<[^>]+>/g, ' ').replace(/\s+/g, ' ').slice(0, 300)}`);
    if (isLogin) logins.add(place);
    if (form.button?.length) q.append(...form.button);
    if (submit) { const [n, v] = submit.split(/=(.*)/s); q.set(n, v); }
    pageOrigin = new URL(url).origin;
    url = action.href; method = 'POST'; body = q.toString();
  }
  throw new Error('login: too many hops');
}
/** Goes on from where `browse` stopped, with its cookies, until a page is shown: its status and text. */
export async function goOn({ url, cookie }) {
  for (let next = url.href, hop = 0; hop < 10; hop++) {
    const res = await fetch(next, { redirect: 'manual', headers: cookie(next) ? { cookie: cookie(next) } : {} });
    const text = await res.text();
    if (res.status < 300 || res.status >= 400) return { status: res.status, text };
    next = new URL(res.headers.get('location'), next).href;
  }
  throw new Error('too many hops');
}
