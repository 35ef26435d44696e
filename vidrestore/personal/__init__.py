"""GPEN adapted to one person: the parts that training needs and inference does not."""
