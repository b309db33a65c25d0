"""The whole service: beside other servers, under load, under attack and with a shadow; and `score` beside a loop."""
