//! What everybody must be able to read and use: names, headings, landmarks, contrast, width. A small
//! script looks at the page as it stands and lists what is wrong.

use crate::driver::Browser;

impl Browser {
    /// The page as it is shown now can be used by everybody.
    pub(crate) async fn audit(&self, what: &str) {
        let found = self.run(AUDIT).await;
        assert_eq!(found, serde_json::json!([]), "{what}: {found:#}");
    }

    /// The audit sees what it is there for: faults are made on the page, which is loaded anew after.
    pub(crate) async fn audit_sees_faults(&self) {
        self.run(FAULTS).await;
        let found = self.run(AUDIT).await.to_string();
        for fault in [
            "no name: <button>",
            "a level is left out before <h4>",
            "of p#sentence",
            "scrolls sideways",
        ] {
            assert!(found.contains(fault), "{fault} is not in {found}");
        }
        self.run("location.reload()").await;
    }
}

const FAULTS: &str = "document.querySelector('#again').textContent = ''; \
    document.querySelector('#use').append(document.createElement('h4')); \
    document.querySelector('#sentence').style.color = '#999999'; \
    document.querySelector('footer').style.width = '4000px';";

const AUDIT: &str = r#"
const wrong = [];
const demand = (holds, text) => { if (!holds) wrong.push(text); };
const all = (selector) => [...document.querySelectorAll(selector)];
const seen = (element) => element.checkVisibility({ visibilityProperty: true });
const called = (element) => `${element.localName}#${element.id} ${element.textContent.slice(0, 40)}`;

demand(document.documentElement.lang === "en", "no language");
demand(document.title.includes(" · dfs"), `title without state: ${document.title}`);
for (const landmark of ["header", "main", "footer"]) {
  demand(all(`body > ${landmark}`).filter(seen).length === 1, `not one ${landmark}`);
}
for (const part of all("nav, ul")) {
  demand(part.closest("nav")?.ariaLabel || part.ariaLabel, `no label: ${called(part)}`);
}
for (const section of all("section")) {
  const heading = document.getElementById(section.getAttribute("aria-labelledby"));
  demand(section.contains(heading) && heading.textContent.trim(), `no heading: ${called(section)}`);
}
demand(all("[role=status][aria-live=polite]").length === 1, "not one live region");

let level = 0;
for (const heading of all("h1, h2, h3, h4, h5, h6").filter(seen)) {
  const next = Number(heading.localName[1]);
  demand(next <= level + 1, `a level is left out before <${heading.localName}> ${heading.textContent}`);
  level = next;
}
demand(all("h1").length === 1, "not one h1");

const ids = all("[id]").map((element) => element.id);
demand(new Set(ids).size === ids.length, `ids twice: ${ids}`);

const name = (element) => {
  const label = element.getAttribute("aria-label") ?? [...(element.labels ?? [])].map((one) => one.textContent).join(" ");
  return (label || element.textContent).trim();
};
for (const element of all("a[href], button, input, select, textarea, summary, pre[tabindex], [role=progressbar], [role=meter]").filter(seen)) {
  demand(name(element), `no name: <${element.localName}> ${element.outerHTML.slice(0, 80)}`);
  const { width, height } = element.getBoundingClientRect();
  demand(!element.matches("button, input") || (width >= 24 && height >= 24), `too small to touch: ${called(element)}`);
  demand(element.tabIndex >= 0 || element.matches("[role]"), `not reached by key: ${called(element)}`);
}
for (const bar of all("[role=progressbar], [role=meter]")) {
  demand(bar.getAttribute("aria-valuetext"), "a bar without text");
}
for (const table of all("table")) {
  demand(table.caption?.textContent && table.querySelector("th[scope=col]") && table.querySelector("th[scope=row]"), "a table without heads");
}

const channels = (color) => color.match(/[\d.]+/g).map(Number);
const light = (color) => {
  const [red, green, blue] = channels(color).slice(0, 3).map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if ((channels(color)[3] ?? 1) === 1) return color;
  }
  return getComputedStyle(document.documentElement).colorScheme.includes("dark") ? "rgb(0,0,0)" : "rgb(255,255,255)";
};
const check = (element, pseudo) => {
  const style = getComputedStyle(element, pseudo);
  const size = parseFloat(style.fontSize);
  const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
  const [one, other] = [light(style.color), light(ground(element))];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  demand(ratio >= least, `contrast ${ratio.toFixed(2)} of ${called(element)} ${pseudo ?? ""}`);
};
let texts = 0;
for (const element of all("body *").filter(seen)) {
  if ([...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())) {
    texts += 1;
    check(element, null);
  }
  for (const pseudo of ["::before", "::after"]) {
    if (!["none", "normal"].includes(getComputedStyle(element, pseudo).content)) check(element, pseudo);
  }
}
demand(texts > 15, `only ${texts} texts`);
const wide = document.documentElement.scrollWidth;
demand(wide <= innerWidth, `scrolls sideways: ${wide} of ${innerWidth}`);
return wrong;
"#;
