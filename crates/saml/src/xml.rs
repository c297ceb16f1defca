//! XML of others, in bounded space and time, in the one form that has a single reading: no document
//! type, no entities, no comments, no processing instructions, no CDATA.

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
/// How many `=` there may be, and so how many attributes and namespaces.
const EQUALS: usize = 4_000;

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
    pub(crate) fn read(text: &'t str, longest: usize) -> Result<Self, String> {
        if text.len() > longest {
            return Err(format!("is longer than {longest} bytes"));
        }
        let count = |wanted: u8| text.bytes().filter(|byte| *byte == wanted).count();
        if count(b'<') > TAGS || count(b'=') > EQUALS {
            return Err(format!("has more than {TAGS} tags or {EQUALS} attributes"));
        }
        let parser = Parser::new().with_max_depth(DEPTH).with_forbid_dtd(true);
        let document = parser
            .with_forbid_entities(true)
            .with_max_entity_expansion(0)
            .parse(text)
            .map_err(|error| format!("cannot be read as XML: {error}"))?;
        for id in document.descendants(document.root()) {
            match document.node_kind(id) {
                Some(NodeKind::Element(_) | NodeKind::Text(_)) => {}
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
        let entities: String =
            (0..40).map(|n| format!("<!ENTITY e{n} \"&e{};\">", n + 1)).collect();
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
            (format!("<a>{}</a>", "=".repeat(EQUALS + 1)).as_str(), "attributes"),
            (" ".repeat(1001).as_str(), "longer"),
        ] {
            let error = Xml::read(text, if what == "longer" { 1000 } else { 1_000_000 });
            let error = error.err().unwrap_or_else(|| panic!("{what} was accepted"));
            assert!(error.contains(what), "{what}: {error}");
        }
        let good = Xml::read("<?xml version=\"1.0\"?><a b='1'>x&amp;y<c/></a>", 1000).unwrap();
        assert_eq!(good.root().attribute("b"), Some("1"));
        assert_eq!(good.root().text(), None);
        assert_eq!(good.elements().count(), 2);
    }
}
