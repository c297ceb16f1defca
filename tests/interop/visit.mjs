// The person's browser, for a program that opens one itself: signs in on the page, and returns to
// where the program listens. env: LOGIN_USER, LOGIN_PASS.
import { browse, goOn } from './browser.mjs';
const [url] = process.argv.slice(2);
const { LOGIN_USER: user, LOGIN_PASS: pass } = process.env;
const page = await goOn(await browse(url, new URL(url).searchParams.get('redirect_uri'), { user, pass }));
process.exit(page.status === 200 ? 0 : 1);
