# SPDX-License-Identifier: MIT
"""Opens the page in headless Chromium, trains, lets it write: python check.py ADDRESS [FOLDER for pictures]"""

import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait


def check(browser, address):
    def find(name):
        return browser.find_element(By.ID, name)

    def wait(done, seconds=300):
        WebDriverWait(browser, seconds).until(lambda _: done() or find("state").get_attribute("class") == "error")

    def press(name):
        find(name).find_element(By.TAG_NAME, "button").click()

    browser.get(address)
    wait(lambda: find("state").text.startswith("Ready"))
    print(find("state").text)
    Select(find("seconds")).select_by_visible_text("10")
    press("training")
    wait(lambda: find("state").text.startswith("Trained"))
    print(find("state").text, "Loss:", find("loss").text)
    assert 0 < float(find("loss").text) < 2, "it did not learn"
    sample = find("sample").text
    press("writing")
    wait(lambda: find("sample").text != sample)
    print(find("sample").text)
    assert find("sample").text.startswith("The river")
    assert find("state").get_attribute("class") == "", find("state").text


def main(address, folder=None):
    for width in 400, 1400:
        options = webdriver.ChromeOptions()
        for argument in "--headless=new", "--no-sandbox":
            options.add_argument(argument)
        with webdriver.Chrome(options) as browser:
            size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            check(browser, address)
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), "it is too wide"
            if folder:
                browser.save_screenshot(str(Path(folder, f"{width}.png")))


if __name__ == "__main__":
    main(*sys.argv[1:])
