#!lua flags=allow-oom
-- First in scripts that also run in a Redis which has no room: they free some, or keep true what is there.

