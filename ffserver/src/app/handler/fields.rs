//! The fields of a type, as its `Deserialize` names them: for operators, who read what a command of the app takes.

use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// The names of a struct's fields; none of another type, or of one whose `Deserialize` is written by hand.
pub(super) fn of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It asks for its fields and gets nothing.
    let _ = T::deserialize(Asked(&mut fields));
    fields
}

/// A deserializer that notes the fields that it is asked for, and has nothing to give.
struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("nothing"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("nothing"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[allow(dead_code, reason = "only asked for its fields")]
    struct Grant {
        user: String,
        #[serde(default, rename = "how-much")]
        amount: u32,
    }

    #[test]
    fn a_struct_names_its_fields_and_other_types_have_none() {
        assert_eq!(of::<Grant>(), ["user", "how-much"]);
        assert_eq!(of::<Vec<Grant>>(), [""; 0]);
        assert_eq!(of::<u8>(), [""; 0]);
    }
}
