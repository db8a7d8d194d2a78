# crnn::crnn, the static library:
#
#     find_package(crnn CONFIG REQUIRED)              # with -Dcrnn_DIR="$(crnn-config --cmakedir)"
#     target_link_libraries(program PRIVATE crnn::crnn)
get_filename_component(crnn_PREFIX "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
foreach(name libcrnn.a crnn.lib)
  if(EXISTS "${crnn_PREFIX}/lib/${name}")
    set(crnn_LIBRARY "${crnn_PREFIX}/lib/${name}")
  endif()
endforeach()
if(NOT crnn_LIBRARY)
  set(crnn_FOUND FALSE)
  set(crnn_NOT_FOUND_MESSAGE "${crnn_PREFIX}/lib has no library of crnn")
elseif(NOT TARGET crnn::crnn)
  add_library(crnn::crnn STATIC IMPORTED)
  set_target_properties(crnn::crnn PROPERTIES
    IMPORTED_LOCATION "${crnn_LIBRARY}"
    IMPORTED_LINK_INTERFACE_LANGUAGES C
    INTERFACE_INCLUDE_DIRECTORIES "${crnn_PREFIX}/include")
  if(UNIX)
    set_target_properties(crnn::crnn PROPERTIES INTERFACE_LINK_LIBRARIES m)
  endif()
endif()
