
"use strict";
(() => {
  // times.js
  localise(document.body);
})();
