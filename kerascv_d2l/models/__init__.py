"""Networks. A model never imports a data set."""
