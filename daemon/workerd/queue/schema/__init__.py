"""The schema as SQL: types, tables, indexes and views, one file for each function, and what upgrades older installations.

An installation runs them all. Functions and views are repeatable: where the database has others than these files, they are applied again.
"""
