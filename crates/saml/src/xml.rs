//! XML of others, in bounded space and time, in the one form that has a single reading: no document
//! type, no entities, no comments, no processing instructions, no CDATA.

use passavant_proto::others_text::shown;
use uppsala::{Document, NodeId, NodeKind, Parser};

/// Namespace of assertions.
pub(crate) const ASSERTION: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
/// Namespace of the protocol.
pub(crate) const PROTOCOL: &str = "urn:oasis:names:tc:SAML:2.0:protocol";
/// Namespace of metadata.
pub(crate) const METADATA: &str = "urn:oasis:names:tc:SAML:2.0:metadata";
/// Namespace of XML Signature.
pub(crate) const SIGNATURE: &str = "http://www.w3.org/2000/09/xmldsig#";

/// How deep elements may be nested.
const DEPTH: u32 = 32;
/// How many tags there may be: no element costs more than one step for each.
const TAGS: usize = 10_000;
/// How many attributes and namespaces there may be.
const ATTRIBUTES: usize = 4_000;
/// Longest name of a namespace, in bytes: the parser copies it into each element, and canonical octets
/// repeat it.
const NAMESPACE: usize = 256;

/// How many texts may be attributes: a `=` with a quote behind it.
fn attributes(text: &str) -> usize {
    let bytes = text.as_bytes();
    let equals = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'=');
    let quoted = equals.filter(|(at, _)| {
        let mut behind = bytes[at + 1..].iter().take(64);
        matches!(behind.find(|byte| !byte.is_ascii_whitespace()), Some(b'"' | b'\''))
    });
    quoted.count()
}

/// Whether a namespace has a longer name than is read here, or one with a reference in it. What only
/// looks like a declaration counts, too.
fn has_odd_namespace(text: &str) -> bool {
    let bytes = text.as_bytes();
    text.match_indices("xmlns").any(|(at, word)| {
        // No further than it takes to know: there may be many of them.
        let rest = &bytes[at + word.len()..];
        let rest = &rest[..rest.len().min(3 * NAMESPACE)];
        let is_name = |byte: &u8| !byte.is_ascii_whitespace() && !b"<>=\"'/".contains(byte);
        let prefix = rest.iter().take_while(|byte| is_name(byte)).count();
        let mut rest = rest[prefix..].trim_ascii_start();
        // White space as long as what is looked at is no declaration that anybody writes.
        if rest.is_empty() {
            return true;
        }
        let Some(value) = rest.strip_prefix(b"=") else { return prefix > NAMESPACE };
        rest = value.trim_ascii_start();
        let Some((quote @ (b'"' | b'\''), value)) = rest.split_first() else {
            return rest.is_empty();
        };
        let end = value.iter().position(|byte| byte == quote).unwrap_or(value.len());
        prefix > NAMESPACE || end > NAMESPACE || value[..end].contains(&b'&')
    })
}

/// Whether the XML declaration, if there is one, says what is read here.
fn is_declared_right(text: &str) -> bool {
    let Some((declaration, _)) = text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>"))
    else {
        return true;
    };
    let said = declaration.replace('\'', "\"").to_ascii_lowercase();
    let value = |name: &str| {
        let (_, rest) = said.split_once(name)?;
        rest.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?.split('"').next()
    };
    value("version") == Some("1.0") && value("encoding").is_none_or(|named| named == "utf-8")
}

/// What else a document may have in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Besides {
    /// Nothing: it was written by a program for a program.
    Nothing,
    /// Comments and processing instructions between elements, as in files that people keep.
    Remarks,
}

/// A document that has been read.
pub(crate) struct Xml<'t> {
    document: Document<'t>,
    root: NodeId,
}

/// An element of it.
#[derive(Clone, Copy)]
pub(crate) struct Element<'x, 't> {
    xml: &'x Xml<'t>,
    id: NodeId,
}

impl<'t> Xml<'t> {
    /// Reads a document of `longest` bytes at most. An error is a clause that follows "it".
    pub(crate) fn read(text: &'t str, longest: usize, besides: Besides) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        if text.len() > longest {
            return Err(format!("is longer than {longest} bytes"));
        }
        if text.bytes().filter(|byte| *byte == b'<').count() > TAGS || attributes(text) > ATTRIBUTES
        {
            return Err(format!("has more than {TAGS} tags or {ATTRIBUTES} attributes"));
        }
        if has_odd_namespace(text) {
            return Err(format!(
                "has a namespace whose name is longer than {NAMESPACE} bytes, or has a reference in it"
            ));
        }
        if !is_declared_right(text) {
            return Err(
                "declares another version than 1.0, or another encoding than UTF-8".to_owned()
            );
        }
        let parser = Parser::new().with_max_depth(DEPTH).with_forbid_dtd(true);
        let document = parser
            .with_forbid_entities(true)
            .with_max_entity_expansion(0)
            .parse(text)
            // The parser's words quote the document.
            .map_err(|error| {
                format!("cannot be read as XML: {}", shown(&error.to_string(), 160))
            })?;
        for id in document.descendants(document.root()) {
            match document.node_kind(id) {
                Some(NodeKind::Element(_) | NodeKind::Text(_)) => {}
                Some(NodeKind::Comment(_) | NodeKind::ProcessingInstruction(_))
                    if besides == Besides::Remarks => {}
                Some(NodeKind::Comment(_)) => return Err("has a comment".to_owned()),
                Some(NodeKind::CData(_)) => return Err("has a CDATA section".to_owned()),
                Some(NodeKind::ProcessingInstruction(_)) => {
                    return Err("has a processing instruction".to_owned());
                }
                _ => return Err("has something that is neither element nor text".to_owned()),
            }
        }
        let root = document.document_element().ok_or_else(|| "has no element".to_owned())?;
        Ok(Self { document, root })
    }

    pub(crate) fn document(&self) -> &Document<'t> {
        &self.document
    }

    /// The outermost element.
    pub(crate) fn root(&self) -> Element<'_, 't> {
        Element { xml: self, id: self.root }
    }

    /// Every element, the outermost one first.
    pub(crate) fn elements(&self) -> impl Iterator<Item = Element<'_, 't>> {
        let below = self.document.descendants(self.root).into_iter();
        let all = std::iter::once(self.root).chain(below.filter(|id| *id != self.root));
        all.filter(|id| self.document.element(*id).is_some()).map(|id| Element { xml: self, id })
    }
}

impl<'x, 't> Element<'x, 't> {
    fn inner(&self) -> &'x uppsala::Element<'t> {
        // Made for elements alone.
        match self.xml.document.node_kind(self.id) {
            Some(NodeKind::Element(element)) => element,
            _ => unreachable!("an `Element` is made for elements alone"),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    pub(crate) fn xml(&self) -> &'x Xml<'t> {
        self.xml
    }

    /// Whether it is this element of this namespace.
    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.inner().matches_name_ns(namespace, name)
    }

    /// Its name without prefix.
    pub(crate) fn name(&self) -> &'x str {
        &self.inner().name.local_name
    }

    /// An attribute that is in no namespace, as all of SAML and XML Signature are.
    pub(crate) fn attribute(&self, name: &str) -> Option<&'x str> {
        let mut all = self.inner().attributes.iter();
        let found = all.find(|held| {
            held.name.local_name == name
                && held.name.namespace_uri.as_deref().is_none_or(str::is_empty)
        });
        found.map(|held| &*held.value)
    }

    /// Every attribute, with its name apart from prefix and namespace.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&'x str, &'x str)> {
        self.inner().attributes.iter().map(|held| (&*held.name.local_name, &*held.value))
    }

    /// The elements in it.
    pub(crate) fn children(&self) -> impl Iterator<Item = Self> + use<'x, 't> {
        let xml = self.xml;
        let all = xml.document.children_iter(self.id);
        all.filter(|id| xml.document.element(*id).is_some()).map(move |id| Self { xml, id })
    }

    /// The elements of this name in it.
    pub(crate) fn all(&self, namespace: &str, name: &str) -> Vec<Self> {
        self.children().filter(|child| child.is(namespace, name)).collect()
    }

    /// The one element of this name in it; `None` if there is none, or if there are several.
    pub(crate) fn only(&self, namespace: &str, name: &str) -> Option<Self> {
        match self.all(namespace, name).as_slice() {
            [one] => Some(*one),
            _ => None,
        }
    }

    /// Its text; `None` if there are elements in it.
    pub(crate) fn text(&self) -> Option<String> {
        let mut text = String::new();
        for id in self.xml.document.children_iter(self.id) {
            match self.xml.document.node_kind(id) {
                Some(NodeKind::Text(part)) => text.push_str(part),
                _ => return None,
            }
        }
        Some(text)
    }
}

/// A text as it stands in an element or in an attribute, in canonical form.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let entities: String = (0..40)
            .map(|n| format!("<!ENTITY e{n} \"&e{};\">", n + 1))
            .collect::<Vec<_>>()
            .concat();
        for (text, what) in [
            ("<a><!-- c --></a>", "comment"),
            ("<a><![CDATA[x]]></a>", "CDATA"),
            ("<?pi x?><a/>", "processing"),
            ("<a/><!-- c -->", "comment"),
            ("<!DOCTYPE a><a/>", "XML"),
            ("<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>", "XML"),
            (format!("<!DOCTYPE a [{entities}]><a>&e0;</a>").as_str(), "XML"),
            ("<a>&x;</a>", "XML"),
            ("<a/><b/>", "XML"),
            ("<a b='1' b='2'/>", "XML"),
            ("<x:a/>", "XML"),
            ("", "XML"),
            ("text", "XML"),
            ("<a>".repeat(40).as_str(), "XML"),
            (format!("<a>{}</a>", "<b/>".repeat(TAGS)).as_str(), "tags"),
            (format!("<a>{}</a>", "='".repeat(ATTRIBUTES + 1)).as_str(), "attributes"),
            (format!("<a xmlns:p='{}'/>", "u".repeat(257)).as_str(), "namespace"),
            (format!("<a xmlns = \n \"{}\"/>", "u".repeat(257)).as_str(), "namespace"),
            (format!("<a xmlns:{}='u'/>", "p".repeat(300)).as_str(), "namespace"),
            (format!("<a xmlns:p{}='u'/>", " ".repeat(5_000)).as_str(), "namespace"),
            ("<a xmlns:p='u&amp;v'/>", "namespace"),
            ("<?xml version='1.1'?><a/>", "version"),
            ("<?xml version='1.0' encoding='UTF-16'?><a/>", "encoding"),
            ("<?xml version=\"1.0\n2026 INFO forged\"?><a/>", "version"),
            (" ".repeat(1001).as_str(), "longer"),
        ] {
            let longest = if what == "longer" { 1000 } else { 1_000_000 };
            let error = Xml::read(text, longest, Besides::Nothing);
            let error = error.err().unwrap_or_else(|| panic!("{what} was accepted"));
            assert!(error.contains(what), "{what}: {error}");
            assert!(error.len() < 400 && !error.contains('\n'), "{what}: {error}");
        }
        // Texts of others are many: these are no attributes.
        let groups = "<b>CN=Group,OU=Groups,DC=acme,DC=example</b>".repeat(2_000);
        assert!(Xml::read(&format!("<a>{groups}</a>"), 1_000_000, Besides::Nothing).is_ok());
        let remarks = "<a><!-- x --><?y z?><c>1</c><d>1<!-- x --></d></a>";
        let remarks = Xml::read(remarks, 1000, Besides::Remarks).unwrap();
        let texts: Vec<_> = remarks.root().children().map(|child| child.text()).collect();
        assert_eq!(texts, [Some("1".to_owned()), None]);
        let good = "\u{feff}<?xml version=\"1.0\" encoding='utf-8'?><a b='1'>x&amp;y<c/></a>";
        let good = Xml::read(good, 1000, Besides::Nothing).unwrap();
        assert_eq!(good.root().attribute("b"), Some("1"));
        assert_eq!(good.root().text(), None);
        assert_eq!(good.elements().count(), 2);
    }
}
