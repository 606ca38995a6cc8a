// What android.kt and android_views.kt are built on.

package android.view

import android.content.Context

open class View(val context: Context) {
    var isEnabled: Boolean
        get() = TODO()
        set(value) = TODO()
    var fitsSystemWindows: Boolean
        get() = TODO()
        set(value) = TODO()

    fun setOnClickListener(listener: (View) -> Unit): Unit = TODO()
}
