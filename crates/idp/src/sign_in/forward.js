'use strict';
// Passes the form of this page on. Without scripts the person presses its button.
document.querySelector('form[data-forward]')?.requestSubmit();
