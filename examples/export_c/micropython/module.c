/* SPDX-License-Identifier: MIT
 * A native module of MicroPython; see docs/export-c.md. */
#include "py/runtime.h"
#include "gesture.h"

static gesture_state state;

static mp_obj_t step(mp_obj_t values) {
    mp_obj_t *items;
    double x[GESTURE_INPUTS];
    float y[GESTURE_OUTPUTS];
    mp_obj_get_array_fixed_n(values, GESTURE_INPUTS, &items);
    for (int i = 0; i < GESTURE_INPUTS; ++i)
        x[i] = mp_obj_get_float(items[i]);
    if (!gesture_step(&state, x, y))
        mp_raise_ValueError(MP_ERROR_TEXT("x: expected finite numbers"));
    return mp_obj_new_str_from_cstr(gesture_classes[gesture_most_probable(y)]);
}
static MP_DEFINE_CONST_FUN_OBJ_1(step_obj, step);

static mp_obj_t reset(void) {
    gesture_init(&state);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(reset_obj, reset);

static const mp_rom_map_elem_t globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_gesture)},
    {MP_ROM_QSTR(MP_QSTR_step), MP_ROM_PTR(&step_obj)},
    {MP_ROM_QSTR(MP_QSTR_reset), MP_ROM_PTR(&reset_obj)},
};
static MP_DEFINE_CONST_DICT(globals, globals_table);
const mp_obj_module_t gesture_module = {.base = {&mp_type_module}, .globals = (mp_obj_dict_t *)&globals};
MP_REGISTER_MODULE(MP_QSTR_gesture, gesture_module);
