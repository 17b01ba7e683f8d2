"""Result in other formats and pictures."""
