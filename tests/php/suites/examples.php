<?php return fn() => null;
