"""Write files of any size so that an interrupted export continues: layout, journal, bundle."""
