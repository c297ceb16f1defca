'use strict';
// Asks the browser for a passkey, and posts what it answers. Without scripts the form says what is missing.
(() => {
  const Credential = window.PublicKeyCredential;
  const decoded = text => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), c => c.charCodeAt(0));
  const encoded = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
  const reasons = {
    NotAllowedError: 'Nothing was done: it was cancelled, or took too long. Try again.',
    InvalidStateError: 'This device has a passkey for this account already.',
    SecurityError: 'Passkeys work only at the address of this server.',
  };

  const options = (form, makes) => {
    const said = JSON.parse(form.dataset.options);
    const native = makes ? Credential.parseCreationOptionsFromJSON : Credential.parseRequestOptionsFromJSON;
    if (native) return native.call(Credential, said);
    said.challenge = decoded(said.challenge);
    if (said.user) said.user.id = decoded(said.user.id);
    for (const held of [...(said.excludeCredentials ?? []), ...(said.allowCredentials ?? [])]) held.id = decoded(held.id);
    return said;
  };

  const answered = (made, makes) => {
    // Some password managers bring a `toJSON` that throws.
    try { if (made.toJSON) return made.toJSON(); } catch { /* what follows does the same */ }
    const { response } = made;
    const parts = { clientDataJSON: encoded(response.clientDataJSON) };
    if (makes) {
      parts.attestationObject = encoded(response.attestationObject);
      parts.transports = response.getTransports?.() ?? [];
    } else {
      parts.authenticatorData = encoded(response.authenticatorData);
      parts.signature = encoded(response.signature);
      parts.userHandle = response.userHandle && encoded(response.userHandle);
    }
    return { id: made.id, rawId: encoded(made.rawId), type: made.type, response: parts, clientExtensionResults: made.getClientExtensionResults() };
  };

  for (const form of document.querySelectorAll('form[data-passkey]')) {
    const told = form.querySelector('[role=status]');
    const tell = text => { told.textContent = text; told.hidden = !text; };
    const makes = form.dataset.passkey === 'create';
    if (!Credential) {
      form.querySelector('button').disabled = true;
      tell('This browser has no passkeys.');
      continue;
    }
    form.addEventListener('submit', async event => {
      event.preventDefault();
      tell('');
      try {
        const made = await navigator.credentials[makes ? 'create' : 'get']({ publicKey: options(form, makes) });
        form.elements.passkey.value = JSON.stringify(answered(made, makes));
        HTMLFormElement.prototype.submit.call(form);
      } catch (error) {
        tell(reasons[error.name] ?? 'This browser or device cannot do that.');
      }
    });
  }
  // A page from the browser's memory has a challenge that was used.
  addEventListener('pageshow', event => { if (event.persisted) location.reload(); });
})();
// The code of a one-time link stands behind its `#`, where no server sees it before the person sends the form.
const fill = () => {
  const fields = document.querySelectorAll('input[data-from-link]'), code = location.hash.slice(1);
  if (!fields.length || !code) return;
  history.replaceState(null, '', location.pathname);
  for (const field of fields) field.value = code;
};
addEventListener('hashchange', fill);
fill();
