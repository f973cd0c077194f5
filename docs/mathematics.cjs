// Typeset formulas with MathJax: from [[TeX, is it displayed?], …] to their HTML and one style sheet for all.
const fs = require("fs");
const path = require("path");

const mathjax = path.join(__dirname, "_static/vendor/mathjax");
const formulas = JSON.parse(fs.readFileSync(0, "utf-8"));

require(path.join(mathjax, "node-main.js")).init({
  loader: {
    paths: { mathjax },
    load: ["input/tex", "output/chtml", "adaptors/liteDOM", "a11y/assistive-mml"],
    versionWarnings: false,
  },
  chtml: { scale: 1.1, fontURL: "vendor/mathjax/output/chtml/fonts/woff-v2" },
}).then(({ startup: { adaptor }, tex2chtml, chtmlStylesheet }) => {
  const html = formulas.map(([tex, display]) => adaptor.outerHTML(tex2chtml(tex, { display })));
  console.log(JSON.stringify({ html, css: adaptor.textContent(chtmlStylesheet()) }));
});
