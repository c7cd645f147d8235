"use strict";
site.start();
