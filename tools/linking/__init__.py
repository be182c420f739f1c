"""From words as people say them to values: numbers, amounts, times and names. Pure; knows no cluster but its names."""
