//! The replica map against tables and random histories.
