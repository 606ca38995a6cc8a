// The part of Android's org.json that examples/android uses, to compile against.

package org.json

class JSONObject(json: String) {
    fun get(name: String): Any = TODO(name)
}

class JSONArray {
    fun length(): Int = TODO()

    fun getLong(index: Int): Long = TODO("$index")
}
