"""Readers of data sets from their official layouts; `registry` names them all."""
