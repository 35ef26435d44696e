"""Look at results and measure them."""
