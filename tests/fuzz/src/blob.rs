//! Flattened device trees that are taken apart, changed and put together again, well-formed or not.
//!
//! The policy's own writer only makes what is right, and a library's model would repair what is to be wrong.

/// The first bytes of every blob.
pub(crate) const MAGIC: [u8; 4] = 0xd00d_feed_u32.to_be_bytes();

/// Structure block tokens (Devicetree Specification 0.4, 5.4.1).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;

/// The blocks of a blob. The structure lacks its last token.
#[derive(Clone, Default)]
pub(crate) struct Blob {
    reservations: Vec<u8>,
    pub(crate) structure: Vec<u8>,
    strings: Vec<u8>,
}

/// A property's token.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    at: usize,
    length: usize,
}

fn word(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes) as usize
}

impl Blob {
    /// Takes a well-formed blob apart.
    pub(crate) fn read(blob: &[u8]) -> Self {
        let block = |offset, size| blob[word(blob, offset)..][..word(blob, size)].to_vec();
        let reservations = &blob[word(blob, 16)..];
        let end =
            reservations.chunks_exact(16).take_while(|entry| entry.iter().any(|&byte| byte != 0)).count();
        let mut structure = block(8, 36);
        structure.truncate(structure.len() - 4);
        Self { reservations: reservations[..16 * end].to_vec(), structure, strings: block(12, 32) }
    }

    /// The whole blob.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let reservations_at = 40;
        let structure_at = reservations_at + self.reservations.len() + 16;
        let strings_at = structure_at + self.structure.len() + 4;
        let size = strings_at + self.strings.len();
        let lengths = [self.strings.len(), self.structure.len() + 4];
        let mut out = MAGIC.to_vec();
        for field in [size, structure_at, strings_at, reservations_at, 17, 16, 0].into_iter().chain(lengths) {
            out.extend((field as u32).to_be_bytes());
        }
        for part in [&self.reservations[..], &[0; 16], &self.structure, &END.to_be_bytes(), &self.strings] {
            out.extend_from_slice(part);
        }
        out
    }

    fn put(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    pub(crate) fn begin(&mut self, name: &str) {
        self.put(BEGIN_NODE);
        self.structure.extend_from_slice(name.as_bytes());
        self.structure.push(0);
        self.pad();
    }

    pub(crate) fn end(&mut self) {
        self.put(END_NODE);
    }

    pub(crate) fn property(&mut self, name: &str, value: &[u8]) {
        let token = self.token(name, value);
        self.structure.extend(token);
    }

    pub(crate) fn reserve(&mut self, address: u64, size: u64) {
        self.reservations.extend([address, size].iter().flat_map(|number| number.to_be_bytes()));
    }

    pub(crate) fn token(&mut self, name: &str, value: &[u8]) -> Vec<u8> {
        let name = self.name(name);
        let mut token: Vec<u8> =
            [PROP, value.len() as u32, name].iter().flat_map(|word| word.to_be_bytes()).collect();
        token.extend_from_slice(value);
        token.resize(token.len().next_multiple_of(4), 0);
        token
    }

    /// The offset of a name in the strings block, where it is put if it is not there.
    fn name(&mut self, name: &str) -> u32 {
        let mut wanted = name.as_bytes().to_vec();
        wanted.push(0);
        let found = self.strings.windows(wanted.len()).position(|window| window == wanted);
        found.unwrap_or_else(|| {
            self.strings.extend_from_slice(&wanted);
            self.strings.len() - wanted.len()
        }) as u32
    }

    /// Where nodes begin and properties stand.
    pub(crate) fn places(&self) -> (Vec<usize>, Vec<Place>) {
        let (mut nodes, mut properties) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < self.structure.len() {
            match word(&self.structure, at) as u32 {
                BEGIN_NODE => {
                    nodes.push(at);
                    at += 4 + self.node_name(at).len() + 1;
                }
                PROP => {
                    let length = word(&self.structure, at + 4);
                    properties.push(Place { at, length });
                    at += 12 + length;
                }
                _ => at += 4,
            }
            at = at.next_multiple_of(4);
        }
        (nodes, properties)
    }

    fn node_name(&self, node: usize) -> &[u8] {
        let rest = &self.structure[node + 4..];
        &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())]
    }

    pub(crate) fn value(&mut self, property: Place) -> &mut [u8] {
        &mut self.structure[property.at + 12..][..property.length]
    }

    /// Gives a property another value.
    pub(crate) fn replace(&mut self, property: Place, value: &[u8]) {
        let value = &value[..value.len().min(4096)];
        let length = (value.len() as u32).to_be_bytes();
        self.structure[property.at + 4..property.at + 8].copy_from_slice(&length);
        let mut padded = value.to_vec();
        padded.resize(value.len().next_multiple_of(4), 0);
        let start = property.at + 12;
        self.structure.splice(start..start + property.length.next_multiple_of(4), padded);
    }

    pub(crate) fn remove(&mut self, property: Place) {
        self.structure.drain(property.at..property.at + 12 + property.length.next_multiple_of(4));
    }

    /// Gives a property another name.
    pub(crate) fn rename(&mut self, property: Place, name: &str) {
        let name = self.name(name).to_be_bytes();
        self.structure[property.at + 8..property.at + 12].copy_from_slice(&name);
    }

    /// Gives a node another name.
    pub(crate) fn rename_node(&mut self, node: usize, name: &str) {
        let old = (self.node_name(node).len() + 1).next_multiple_of(4);
        let mut new = name.as_bytes().to_vec();
        new.resize((name.len() + 1).next_multiple_of(4), 0);
        self.structure.splice(node + 4..node + 4 + old, new);
    }

    /// Adds a property to a node.
    pub(crate) fn insert(&mut self, node: usize, name: &str, value: &[u8]) {
        let at = node + 4 + (self.node_name(node).len() + 1).next_multiple_of(4);
        let token = self.token(name, value);
        self.structure.splice(at..at, token);
    }

    /// Repeats a node with all below it, so that there are two.
    pub(crate) fn double(&mut self, node: usize) {
        let (mut depth, mut at) = (0_usize, node);
        while at < self.structure.len() {
            match word(&self.structure, at) as u32 {
                BEGIN_NODE => {
                    depth += 1;
                    at += 4 + self.node_name(at).len() + 1;
                }
                END_NODE if depth == 1 => break,
                END_NODE => {
                    depth -= 1;
                    at += 4;
                }
                PROP => at += 12 + word(&self.structure, at + 4),
                _ => at += 4,
            }
            at = at.next_multiple_of(4);
        }
        let copy = self.structure[node..at + 4].to_vec();
        if copy.len() <= 4096 {
            self.structure.splice(node..node, copy);
        }
    }
}
