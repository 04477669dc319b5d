//! HTML pages that are one file: style, scripts and images are in them, nothing is fetched.
//!
//! A [`Page`] is sections in a common frame (navigation, light and dark, print); [`fill`] makes a section's
//! body from a template, in which every value is escaped unless it is [`Markup`].
//!
//! ```
//! use atrous::report::page::{Page, fill};
//! use std::collections::BTreeMap;
//!
//! let values = BTreeMap::from([("name", "<script>"), ("score", "0.71")]);
//! let body = fill("<p>{{ name }}: {{ score }}</p>", &values)?;
//! let html = Page::new("A run").section("scores", "Scores", body).render()?;
//! assert!(html.contains("<p>&lt;script&gt;: 0.71</p>"));
//! # Ok::<(), atrous::Error>(())
//! ```

use crate::data::{Image, image_files};
use crate::error::{Error, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::{Serialize, Serializer};
use std::fmt;

/// The variables and classes that pages are styled with: `--paper`, `--ink`, `.tiles`, `.plots`, `.scroll`.
///
/// ```
/// assert!(atrous::report::page::BASE_CSS.contains("--paper"));
/// ```
pub const BASE_CSS: &str = include_str!("base.css");
const BASE_JS: &str = include_str!("base.js");
const BASE_HTML: &str = include_str!("base.html");

/// Text that stands in a page as it is: a template prints it unescaped.
///
/// ```
/// use atrous::report::page::{Markup, fill};
/// use std::collections::BTreeMap;
///
/// let bold = Markup::trusted("<b>0.71</b>"); // written here: nothing of a file's is in it
/// assert_eq!(Markup::join([bold.clone(), bold.clone()]).as_str(), "<b>0.71</b>\n<b>0.71</b>");
/// let filled = fill("<td>{{ score }}</td>", &BTreeMap::from([("score", bold)]))?;
/// assert_eq!(filled.to_string(), "<td><b>0.71</b></td>");
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Markup(String);

impl Markup {
    /// Whoever calls this answers for it: nothing that came from a file or a command line may be in it
    /// unescaped.
    pub fn trusted(html: impl Into<String>) -> Self {
        Markup(html.into())
    }

    /// One after the other, a line each.
    pub fn join(parts: impl IntoIterator<Item = Markup>) -> Self {
        Markup(parts.into_iter().map(|part| part.0).collect::<Vec<_>>().join("\n"))
    }

    /// The HTML.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Markup {
    /// A template's safe string; plain text for any other serializer.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Value::from_safe_string(self.0.clone()).serialize(serializer)
    }
}

/// Fills a minijinja template with values. An error where the template is
/// wrong or names a value that is not there.
///
/// ```
/// use atrous::report::page::fill;
/// use std::collections::BTreeMap;
///
/// let names = BTreeMap::from([("names", ["cat", "<dog>"])]);
/// let list = fill("{% for name in names %}<li>{{ name }}</li>{% endfor %}", &names)?;
/// assert_eq!(list.as_str(), "<li>cat</li><li>&lt;dog&gt;</li>");
/// assert!(fill("{{ absent }}", &names).is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn fill(template: &str, values: &impl Serialize) -> Result<Markup> {
    let html = environment().render_str(template, Serde(values));
    html.map(Markup).map_err(|error| Error::argument("template", format!("{error:#}")))
}

/// Templates that escape everything, whatever they are called, and take no missing value for an empty one.
///
/// ```
/// use atrous::report::page::environment;
/// use std::collections::BTreeMap;
///
/// let mut templates = environment();
/// templates.add_template("cell", "<td>{{ x }}</td>").unwrap();
/// let html = templates.get_template("cell").unwrap().render(BTreeMap::from([("x", "a < b")]));
/// assert_eq!(html.unwrap(), "<td>a &lt; b</td>");
/// ```
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment
}

/// `data:image/png;base64,…`: an image within the page, for an `img`'s `src`.
///
/// ```
/// assert_eq!(atrous::report::page::png_data_uri(b"abc").as_str(), "data:image/png;base64,YWJj");
/// ```
pub fn png_data_uri(png: &[u8]) -> Markup {
    Markup(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

/// `data:image/jpeg;base64,…`: photographs are a fraction of their PNG.
///
/// ```
/// assert_eq!(atrous::report::page::jpeg_data_uri(b"abc").as_str(), "data:image/jpeg;base64,YWJj");
/// ```
pub fn jpeg_data_uri(jpeg: &[u8]) -> Markup {
    Markup(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}

/// An image as a PNG's data URI.
///
/// ```
/// use atrous::data::Image;
/// use atrous::report::page::image_data_uri;
///
/// let uri = image_data_uri(&Image::new(1, 1, vec![255, 0, 0])?)?;
/// assert!(uri.as_str().starts_with("data:image/png;base64,iVBORw0KGgo")); // a PNG's first bytes
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn image_data_uri(image: &Image) -> Result<Markup> {
    let mut png = Vec::new();
    image_files::encode_png(&mut png, image)
        .map_err(|error| Error::argument("page", format!("an image cannot be a PNG: {error}")))?;
    Ok(png_data_uri(&png))
}

/// A page: a title, sections that the navigation leads to, and what scripts and data it has of its own.
///
/// ```
/// use atrous::report::page::{Markup, Page};
///
/// let page = Page::new("Cats & dogs")
///     .subtitle("a run of two epochs")
///     .section("scores", "Scores", Markup::trusted("<p id=score></p>"))
///     .style("#score { font-weight: bold }")
///     .script("score.textContent = JSON.parse(document.getElementById('values').textContent)[0]")
///     .data("values", &[0.71])?;
/// let html = page.render()?;
/// assert!(html.contains("<title>Cats &amp; dogs</title>") && html.contains("[0.71]</script>"));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    title: String,
    subtitle: String,
    footer: String,
    sections: Vec<Section>,
    styles: Vec<Markup>,
    scripts: Vec<Markup>,
    data: Vec<Data>,
}

#[derive(Clone, Debug, Serialize)]
struct Section {
    id: String,
    heading: String,
    body: Markup,
}

#[derive(Clone, Debug, Serialize)]
struct Data {
    id: &'static str,
    json: Markup,
}

impl Page {
    /// An empty page.
    pub fn new(title: impl Into<String>) -> Self {
        Page { title: title.into(), footer: footer(), ..Page::default() }
    }

    /// A line below the title.
    pub fn subtitle(mut self, text: impl Into<String>) -> Self {
        self.subtitle = text.into();
        self
    }

    /// A section at the end; `id` is its anchor, one of its own.
    pub fn section(mut self, id: impl Into<String>, heading: impl Into<String>, body: Markup) -> Self {
        self.sections.push(Section { id: id.into(), heading: heading.into(), body });
        self
    }

    /// Style of the page's own, after [`BASE_CSS`].
    pub fn style(mut self, css: &'static str) -> Self {
        self.styles.push(Markup::trusted(css));
        self
    }

    /// A script, run when the page is complete; the first of them after the frame's own.
    pub fn script(mut self, js: &'static str) -> Self {
        self.scripts.push(Markup::trusted(js));
        self
    }

    /// Values for scripts: `JSON.parse(document.getElementById(id).textContent)`. An error where they
    /// cannot be JSON.
    pub fn data(mut self, id: &'static str, values: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_string(values).map_err(|error| Error::argument("page", error))?;
        // Within a script nothing is escaped, and `</script>` ends it wherever it stands.
        let json = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        self.data.push(Data { id, json: Markup(json) });
        Ok(self)
    }

    /// The whole page, in one file.
    pub fn render(&self) -> Result<String> {
        let mut environment = environment();
        environment.add_global("css", Value::from_safe_string(BASE_CSS.into()));
        environment.add_global("js", Value::from_safe_string(BASE_JS.into()));
        let html = environment.render_str(BASE_HTML, Serde(self));
        html.map_err(|error| Error::argument("page", format!("{error:#}")))
    }
}

fn footer() -> String {
    format!(
        "Written by atrous {}. This page is one file and fetches nothing.",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_value_is_escaped_and_markup_is_not() {
        #[derive(Serialize)]
        struct Values {
            text: &'static str,
            markup: Markup,
            many: Vec<Markup>,
        }
        let (markup, many) = (Markup::trusted("<b>x</b>"), vec![Markup::trusted("<i>y</i>")]);
        let values = Values { text: "<script>\"'&", markup, many };
        let html = fill("{{ text }} {{ markup }} {% for m in many %}{{ m }}{% endfor %}", &values);
        assert_eq!(html.unwrap().as_str(), "&lt;script&gt;&quot;&#x27;&amp; <b>x</b> <i>y</i>");
    }

    #[test]
    fn a_value_that_is_missing_is_an_error_that_names_its_line() {
        let none = BTreeMap::<&str, u8>::new();
        let error = fill("a\n{{ absent }}", &none).unwrap_err().to_string();
        assert!(error.starts_with("template: undefined value") && error.contains(":2"), "{error}");
    }

    #[test]
    fn a_page_holds_its_sections_and_leads_to_them() {
        let page = Page::new("<b>title").subtitle("a & b").style(".x{}").script("let y = 1 < 2;");
        let page = page.section("one", "First <", Markup::trusted("<p>body</p>"));
        let page = page.data("values", &["</script><script>alert(1)"]).unwrap();
        let html = page.render().unwrap();
        for part in [
            "<title>&lt;b&gt;title</title>",
            "<a href=\"#one\">First &lt;</a>",
            "<h2 id=\"one-heading\">First &lt;</h2>\n<p>body</p>",
            "a &amp; b",
            ".x{}",
            "let y = 1 < 2;",
            r#"id="values">["\u003c/script\u003e\u003cscript\u003ealert(1)"]</script>"#,
        ] {
            assert!(html.contains(part), "{part} is not in\n{html}");
        }
        assert!(!html.contains("http"), "a page fetches nothing");
    }

    #[test]
    fn an_image_within_a_page_decodes_to_itself() {
        let image = Image::new(2, 3, (0..18).collect()).unwrap();
        let uri = image_data_uri(&image).unwrap();
        let bytes = STANDARD.decode(uri.as_str().strip_prefix("data:image/png;base64,").unwrap());
        assert_eq!(image_files::decode_image(&bytes.unwrap()).unwrap(), image);
    }
}
