"""Generated body files and the script that makes them."""
