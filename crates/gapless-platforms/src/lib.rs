//! Where groups run and traffic is shifted.
