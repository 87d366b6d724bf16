//! What an actor's storage must offer so that saving it costs what has changed.

/// A value that is kept as rows in a durable key-value store.
///
/// The runtime keeps the last saved value, asks the next one for the difference and writes only that,
/// so that the cost of a save grows with the change and not with the value.
pub trait Durable: Sized {
    /// Reports every row in which `self` differs from `before`: the new value, or `None` if the row is
    /// gone. With no `before`, every row of `self`.
    fn difference(&self, before: Option<&Self>, put: &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>));

    /// Builds the value again from all of its rows, in the order of their keys. `Ok(None)` if there
    /// are none.
    ///
    /// # Errors
    ///
    /// Says what is wrong if the rows are not ones that [`Durable::difference`] reports.
    fn restore(rows: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Option<Self>, String>;
}
