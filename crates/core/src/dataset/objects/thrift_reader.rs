//! Reader of Thrift's compact protocol, in which Parquet writes its footer and the headers of its pages.
//!
//! Parquet's decoder reads a known field as the type that it should have, and this reader insists on that type and on one order of
//! fields, so both read the same values.

/// Result of parsing; the error is a reason.
pub(super) type Parsed<T> = Result<T, &'static str>;

/// Fields of a struct that the decoder knows; others are skipped.
pub(super) struct Struct {
    pub name: &'static str,
    pub fields: &'static [(i64, Type)],
}

/// Type of a field. Integers of 16, 32 and 64 bits and enums are written in one form.
pub(super) enum Type {
    Bool,
    Byte,
    Integer,
    Double,
    Binary,
    List(&'static Type),
    Struct(&'static Struct),
}

/// Event of reading a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Integer with the number of its field.
    Integer(i64, i64),
    End,
}

/// Receives the events of structs with their names.
type Visit<'v> = dyn FnMut(&'static str, Event) -> Parsed<()> + 'v;

/// Deepest nesting of values that are not known.
const MAX_DEPTH: usize = 64;

const DAMAGED: &str = "its metadata cannot be read";

/// Codes of types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const STRUCT: u8 = 12;

/// Reads values from the start of the rest of a buffer.
pub(super) struct CompactReader<'a>(pub &'a [u8]);

impl CompactReader<'_> {
    /// Reads a struct.
    ///
    /// # Errors
    /// For data that ends early, fields that have another type or are not in the order of their numbers, and errors of `visit`.
    pub fn read_struct(&mut self, shape: &Struct, visit: &mut Visit<'_>) -> Parsed<()> {
        let mut last_id = 0;
        while let Some((id, kind)) = self.field_header(last_id)? {
            if id <= last_id {
                return Err(DAMAGED);
            }
            last_id = id;
            match shape.fields.iter().find(|(known, _)| *known == id) {
                Some((_, Type::Bool)) if kind == TRUE || kind == FALSE => {}
                Some((_, Type::Integer)) if (I16..=I64).contains(&kind) => {
                    let value = self.integer()?;
                    visit(shape.name, Event::Integer(id, value))?;
                }
                Some((_, known)) if kind == known.code() => self.read_value(known, visit)?,
                Some(_) => return Err(DAMAGED),
                None => self.skip(kind, 0)?,
            }
        }
        visit(shape.name, Event::End)
    }

    /// Reads the element of a list, or a field that is neither a boolean nor an integer.
    fn read_value(&mut self, known: &Type, visit: &mut Visit<'_>) -> Parsed<()> {
        match known {
            Type::List(element) => {
                let (count, kind) = self.list_header()?;
                let is_integer = matches!(element, Type::Integer) && (I16..=I64).contains(&kind);
                if count > 0 && kind != element.code() && !is_integer {
                    return Err(DAMAGED);
                }
                (0..count).try_for_each(|_| self.read_value(element, visit))
            }
            Type::Struct(shape) => self.read_struct(shape, visit),
            Type::Integer => self.varint().map(drop),
            Type::Bool | Type::Byte | Type::Double | Type::Binary => self.skip(known.code(), 0),
        }
    }

    fn byte(&mut self) -> Parsed<u8> {
        let (first, rest) = self.0.split_first().ok_or(DAMAGED)?;
        self.0 = rest;
        Ok(*first)
    }

    /// Unsigned integer in groups of 7 bits.
    pub fn varint(&mut self) -> Parsed<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DAMAGED)
    }

    /// Signed integer.
    pub fn integer(&mut self) -> Parsed<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// Removes bytes from the start.
    pub fn skip_bytes(&mut self, count: u64) -> Parsed<()> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.0 = self.0.get(count..).ok_or(DAMAGED)?;
        Ok(())
    }

    /// Number and type of the next field of a struct; `None` at its end.
    fn field_header(&mut self, last_id: i64) -> Parsed<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        let id = match i64::from(byte >> 4) {
            0 => self.integer()?,
            delta => last_id + delta,
        };
        match i16::try_from(id) {
            Ok(_) => Ok(Some((id, byte & 0x0F))),
            Err(_) => Err(DAMAGED),
        }
    }

    /// Number and type of a list's elements.
    fn list_header(&mut self) -> Parsed<(u64, u8)> {
        let byte = self.byte()?;
        let count = match byte >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Ok((count, byte & 0x0F))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Parsed<()> {
        if depth > MAX_DEPTH {
            return Err(DAMAGED);
        }
        match kind {
            // The value of a field is its type.
            TRUE | FALSE => {}
            BYTE => drop(self.byte()?),
            I16..=I64 => drop(self.varint()?),
            DOUBLE => self.skip_bytes(8)?,
            BINARY => {
                let length = self.varint()?;
                self.skip_bytes(length)?;
            }
            LIST | SET => {
                let (count, kind) = self.list_header()?;
                // In lists, a boolean takes a byte.
                let kind = if kind <= FALSE { BYTE } else { kind };
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))?;
            }
            STRUCT => {
                // Numbers do not matter where no field is known.
                while let Some((_, kind)) = self.field_header(0)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return Err(DAMAGED),
        }
        Ok(())
    }
}

impl Type {
    /// Code of the type in lists, and in fields that are neither booleans nor integers.
    fn code(&self) -> u8 {
        match self {
            Self::Bool => TRUE,
            Self::Byte => BYTE,
            Self::Integer => I64,
            Self::Double => DOUBLE,
            Self::Binary => BINARY,
            Self::List(_) => LIST,
            Self::Struct(_) => STRUCT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SHAPE: Struct = Struct { name: "Shape", fields: &[(1, Type::Integer), (3, Type::Binary)] };

    fn read(bytes: &[u8]) -> Parsed<Vec<Event>> {
        let mut events = Vec::new();
        let mut reader = CompactReader(bytes);
        reader.read_struct(&SHAPE, &mut |_, event| {
            events.push(event);
            Ok(())
        })?;
        Ok(events)
    }

    #[test]
    fn known_fields_have_their_type_and_their_order() {
        let events = [Event::Integer(1, -2), Event::End];
        // Field 2 is not known: a list of two bytes.
        assert_eq!(read(&[0x15, 3, 0x19, 0x23, 9, 9, 0x18, 1, b'a', 0]).unwrap(), events);
        for damaged in [
            // Field 1 as a text; field 3 before it; field 1 twice; a number that is no field's; a text that ends early.
            &[0x18, 1, b'a', 0][..],
            &[0x38, 1, b'a', 0x05, 2, 3, 0],
            &[0x15, 3, 0x05, 2, 3, 0],
            &[0x05, 0x82, 0x80, 0x08, 3, 0],
            &[0x38, 9, b'a', 0],
        ] {
            assert_eq!(read(damaged), Err(DAMAGED), "{damaged:?}");
        }
    }

    #[test]
    fn lists_of_lists_without_end_are_refused() {
        assert_eq!(read(&[[0x29].as_slice(), &[0x19; 1000]].concat()), Err(DAMAGED));
    }
}
